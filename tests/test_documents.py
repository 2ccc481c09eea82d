"""What the documents show runs, and what is generated is fresh."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from prumerge.tiny import held_out, samples

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def few(monkeypatch):
    """The first samples and questions alone: programs run to their end, and show less."""
    monkeypatch.setattr("prumerge.tiny.samples", lambda: samples()[:2])
    monkeypatch.setattr("prumerge.tiny.held_out", lambda count: held_out(min(count, 2)))


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_code_in_the_readme_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_the_examples_run(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


# `serve` starts a process of its own; `make notebooks` runs all of them.
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["quick_start", "compare", "own_method", "fine_tune"])
def test_the_notebooks_run_as_programs(name, capsys):
    runpy.run_path(str(ROOT / "docs" / "notebooks" / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out


def test_the_generated_documents_are_fresh():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "document",
    ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))],
)
def test_links_between_documents_lead_somewhere(document):
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_file_of_the_package_is_on_the_map():
    page = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "prumerge").iterdir():
        if path.name not in ("__init__.py", "__pycache__", "py.typed"):
            assert f"  {path.name}" in page, path.name
