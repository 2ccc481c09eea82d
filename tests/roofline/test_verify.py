"""The formulas equal what torch counts, to the last integer."""

import pytest

from prumerge.roofline import verify as module
from prumerge.roofline.verify import Check, verify


@pytest.fixture(scope="module")
def checks():
    return verify()


def test_every_formula_equals_torchs_counter(checks):
    assert [check for check in checks if not check.equal] == []


def test_all_kinds_of_models_are_counted(checks):
    assert {check.model for check in checks} == {*module.SIZES, "CLIP ViT-L/14-336", "LLaVA-1.5-7B"}
    assert min(check.counted for check in checks) > 10**8  # nothing was skipped by the counter


def test_the_command_prints_them_and_fails_if_one_differs(run, monkeypatch, checks):
    monkeypatch.setattr(module, "verify", lambda: checks)
    code, out, _ = run("roofline", "--verify")
    assert code == 0
    assert out.count("yes") == len(checks)
    monkeypatch.setattr(module, "verify", lambda: [*checks, Check("one", "pass", 1, 2)])
    code, out, _ = run("roofline", "--verify", "--json")
    assert code == 1
    assert '"equal": false' in out
