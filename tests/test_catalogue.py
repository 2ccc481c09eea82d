"""Methods that other packages add: the example's package as if it were installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import visual_tokens

import prumerge
from prumerge import catalogue

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_package"
CACHED = (catalogue.names, catalogue.built_in, catalogue.added)


def install(site, name="prumerge-loudest", points=None, *files):
    """What pip writes: the modules, and metadata with the entry points."""
    about = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (about / "entry_points.txt").write_text(f"[{catalogue.GROUP}]\n{lines}")
    for file in files:
        shutil.copy(file, site)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(tmp_path)
    for cached in CACHED:
        cached.cache_clear()
    yield tmp_path
    sys.modules.pop("prumerge_loudest", None)
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture
def example(site):
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(site, project["name"], project["entry-points"][catalogue.GROUP], *EXAMPLE.glob("*.py"))
    return site


def test_a_method_of_another_package_is_made_like_any(example):
    assert "loudest" in prumerge.names()
    tokens, reducer = visual_tokens((1, 7, 9)), prumerge.make("loudest:keep=5")
    assert str(reducer) == "loudest:keep=5"
    assert prumerge.make(str(reducer)) == reducer
    assert reducer(tokens).index.tolist() == tokens.features.norm(dim=-1).topk(5).indices.tolist()
    with pytest.raises(ValueError, match="loudest has no option 'k'; it has: keep"):
        prumerge.make("loudest:k=5")


def test_its_name_is_that_of_the_entry_point(site):
    install(site, "other", {"loud": "prumerge_loudest:Loudest"}, *EXAMPLE.glob("*.py"))
    assert str(prumerge.make("loud:keep=5")) == "loud:keep=5"


def test_the_command_line_describes_it(example, run):
    code, out, _ = run("methods")
    assert code == 0
    assert "loudest" in out
    assert "The tokens with the longest feature vectors." in out
    code, out, _ = run("methods", "loudest")
    assert code == 0
    assert "a count or a share below 1" in out


def test_listing_it_imports_nothing(example):
    code = (
        "import sys; from prumerge import catalogue; "
        "assert 'loudest' in [entry.name for entry in catalogue.entries()]; "
        "sys.exit('torch' in sys.modules or 'prumerge_loudest' in sys.modules)"
    )
    root = Path(prumerge.__file__).parent.parent
    path = {"PYTHONPATH": f"{example}:{root}"}
    assert subprocess.run([sys.executable, "-c", code], env=path, check=False).returncode == 0


def test_the_methods_of_this_package_cannot_be_replaced(site):
    install(site, "other", {"topk": "prumerge_loudest:Loudest"}, *EXAMPLE.glob("*.py"))
    assert type(prumerge.make("topk")).__name__ == "TopK"
    assert catalogue.entry("topk").adaptive


def test_something_that_is_no_method_is_refused(site):
    install(site, "other", {"odd": "prumerge_loudest:prumerge"}, *EXAMPLE.glob("*.py"))
    with pytest.raises(TypeError, match="the method 'odd' of another package is no subclass"):
        prumerge.make("odd")


def test_a_package_in_folders_is_read_without_importing_it(site):
    inner = site / "outer" / "inner"
    inner.mkdir(parents=True)
    (site / "outer" / "__init__.py").write_text("raise AssertionError('imported')\n")
    shutil.copy(EXAMPLE / "prumerge_loudest.py", inner / "__init__.py")
    shutil.copy(EXAMPLE / "prumerge_loudest.py", inner / "method.py")
    install(site, "outer", {"a": "outer.inner:Loudest", "b": "outer.inner.method:Loudest"})
    assert catalogue.entry("a").options == catalogue.entry("b").options
    assert catalogue.entry("b").options[0].name == "keep"


def test_a_package_whose_source_cannot_be_read_is_named_and_the_others_are_described(site, run):
    install(site, "gone", {"gone": "gone.method:Method"})
    install(site, "odd", {"odd": "odd_module:Method"})
    (site / "odd_module.py").write_text("Method = make_a_method()\n")
    _, out, _ = run("methods")
    assert "A method of the package gone, whose source cannot be read." in out
    assert "A method of the package odd, whose source cannot be read." in out
    assert catalogue.entry("topk").summary in " ".join(out.split())
