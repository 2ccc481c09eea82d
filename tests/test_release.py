"""What is released: one version everywhere, and a wheel with all that a user runs and no more."""

import ast
import importlib
import re
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

import prumerge

ROOT = Path(__file__).parent.parent
EXCLUDED = re.findall(r'^  "(prumerge/tiny/.+)",$', (ROOT / "pyproject.toml").read_text(), re.M)


def in_the_wheel(path):
    return not any(fnmatch(str(path), pattern) for pattern in EXCLUDED)


def imported(path):
    """The modules of prumerge that a file imports anywhere, as paths."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prumerge"):
            home = Path(*node.module.split("."))
            yield home.with_suffix(".py")
            yield from (home / f"{alias.name}.py" for alias in node.names)


def test_one_version_everywhere():
    version = prumerge.__version__
    assert re.search(
        rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


def test_what_is_in_the_wheel_imports_nothing_that_is_not():
    files = {path.relative_to(ROOT) for path in (ROOT / "prumerge").rglob("*.py")}
    shipped = {path for path in files if in_the_wheel(path)}
    assert Path("prumerge/tiny/train.py") not in shipped
    assert {
        (str(path), str(target)) for path in shipped for target in imported(path) if target in files - shipped
    } == set()


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.stem)
def test_forms_and_workflows_are_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("prumerge/tiny/train.py", "prumerge/tiny/train.py should not be in it"),
        ("prumerge/tiny/learn_vision.py", "prumerge/tiny/learn_vision.py should not be in it"),
        ("prumerge/train/run.py", None),
    ],
)
def test_the_wheel_is_checked(monkeypatch, tmp_path, name, problem):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    check = importlib.import_module("check_wheel")
    wheel = tmp_path / "prumerge-0-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        for wanted in (*check.WANTED, name):
            archive.writestr(wanted, "")
        archive.writestr("prumerge-0.dist-info/METADATA", "[a](https://x) [b](#c)")
    assert check.problems(wheel) == ([problem] if problem else [])


def test_a_wheel_that_lacks_something_is_told_so(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    check = importlib.import_module("check_wheel")
    wheel = tmp_path / "prumerge-0-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("prumerge-0.dist-info/METADATA", "![a](docs/a.png)")
    assert check.problems(wheel) == [
        *(f"{name} is missing" for name in check.WANTED),
        "the link docs/a.png leads nowhere on PyPI",
    ]
