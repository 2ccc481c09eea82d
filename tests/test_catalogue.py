"""Methods that other packages add: the example's package as if it were installed."""

import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from builders import visual_tokens

import prumerge
from prumerge import catalogue
from prumerge.models import family_of

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


DERIVED = {
    "another method": {
        "own.py": """
            from prumerge.reducers.prumerge import PruMerge

            @dataclass(frozen=True)
            class Method(PruMerge):
                'PruMerge, louder.'

                loud: int = 3
                'How loud.'
        """
    },
    "a base class in the package": {
        "own/__init__.py": "raise AssertionError('imported')",
        "own/base.py": """
            from prumerge import reducer

            @dataclass(frozen=True)
            class Base(reducer.Reducer):
                place = "before the language model"
                loud: int = 3
                'How loud.'
        """,
        "own/method.py": """
            from . import base as things
            from .mixin import Mixin

            @dataclass(frozen=True)
            class Method(Mixin, things.Base):
                'A method.'
        """,
        "own/mixin.py": "class Mixin: needs = 'keys'",
    },
    "a class that the package hands on": {
        "own/__init__.py": "from own.loud import Loud as Method",
        "own/loud.py": """
            from prumerge import Reducer

            @dataclass(frozen=True)
            class Loud(Reducer):
                'A method.'
                loud: int = field(default=3)
                'How loud.'
        """,
    },
    "a base from another library": {
        "own.py": """
            import abc
            import prumerge.reducer
            from no_such_package import Plugin

            @dataclass(frozen=True)
            class Method(Plugin, prumerge.reducer.Reducer, abc.ABC):
                'A method.'
                loud: int = 3
                'How loud.'
        """
    },
}


@pytest.mark.parametrize("files", DERIVED.values(), ids=DERIVED)
def test_inherited_options_are_listed_wherever_they_are_written(site, files):
    for name, text in files.items():
        path = site / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("from dataclasses import dataclass, field\n" + dedent(text))
    install(site, "own", {"louder": "own.method:Method" if "own/method.py" in files else "own:Method"})
    entry = catalogue.entry("louder")
    options = {option.name: option for option in entry.options}
    assert options["loud"] == catalogue.Option("loud", "int", "3", "How loud.")
    if "PruMerge" in str(files):
        of_prumerge = catalogue.entry("prumerge")
        assert entry.options == (*of_prumerge.options, options["loud"])
        assert entry.facts() == of_prumerge.facts()
    if "Mixin" in str(files):
        assert (entry.place, entry.needs) == ("before the language model", "keys")


UNREADABLE = {
    "no module": {},
    "no class": {"own.py": b"Other = 3"},
    "a class that is made": {"own.py": b"Method = make_a_method()"},
    "no method": {"own.py": b"class Method: pass"},
    "no Python": {"own.py": b"class Method("},
    "no text": {"own.py": b"\xff\xfe class"},
    "constants that are computed": {
        "own.py": b"from prumerge import Reducer\nclass Method(Reducer):\n    paper = url()"
    },
    "a base that is itself": {"own.py": b"class Method(Method): pass"},
    "imports in a circle": {"own.py": b"from other import Method", "other.py": b"from own import Method"},
}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((kind, "own:Method") for kind in UNREADABLE),
        *(("no class", value) for value in ("own", "own:", ":", "own.deeper:Method", "own:Method.inner")),
    ],
)
def test_a_method_that_cannot_be_read_is_a_row_that_says_so(site, kind, value):
    for name, text in UNREADABLE[kind].items():
        (site / name).write_bytes(text)
    install(site, "my-package", {"odd": value})
    entry = catalogue.entry("odd")
    assert entry.summary == "A method of the package my-package, whose source cannot be read."
    assert not entry.options
    assert len(catalogue.entries()) == len(catalogue.built_in()) + 1


def test_the_table_names_what_cannot_be_read_and_describes_the_others(site, run):
    install(site, "gone", {"gone": "gone.method:Method"})
    code, out, _ = run("methods")
    assert code == 0
    assert "A method of the package gone, whose source cannot be read." in " ".join(out.split())
    assert catalogue.entry("topk").summary in " ".join(out.split())
    assert run("methods", "gone")[0] == 0


@pytest.mark.parametrize("name", catalogue.families())
def test_a_family_is_described_by_its_file(name):
    told, family = catalogue.family(name), family_of(name)
    assert told in catalogue.all_families()
    assert told.summary.endswith(".")
    assert (told.takes, told.attention, told.reduced) == (family.takes, family.attention, family.reduced)
