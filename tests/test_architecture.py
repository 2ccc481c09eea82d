"""Who may know whom, what is public, and that descriptions are those of the code."""

import ast
import subprocess
import sys
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

import prumerge
from prumerge import catalogue
from prumerge.models import Family, families, family_of

ROOT = Path(prumerge.__file__).parent
METHODS = sorted(path for path in (ROOT / "reducers").glob("*.py") if path.stem != "__init__")
FAMILIES = sorted((ROOT / "models").glob("[!_]*.py"))
SHARED = sorted((ROOT / "models").glob("_*.py"))
CORE = (
    "tokens",
    "ops",
    "reducer",
    "merging",
    "frames",
    "places",
    "catalogue",
    "temporal",
    "vision",
    "splice",
    "text_tower",
    "binding",
    "layout",
    "looking",
    "masks",
    "inside",
    "attachment",
)


def imports(path):
    """Every module that a file imports, at its top or later; `from prumerge import ops` is prumerge.ops."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "prumerge":
                found |= {f"prumerge.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def ours(path):
    return {name for name in imports(path) if name.split(".")[0] == "prumerge"}


def named(path):
    return path.stem


# who imports whom


@pytest.mark.parametrize("path", METHODS, ids=named)
def test_a_method_knows_tensors_and_nothing_of_models_or_other_methods(path):
    assert imports(path) <= {
        "__future__",
        "dataclasses",
        "jaxtyping",
        "math",
        "torch",
        "torch.nn.functional",
        "typing",
        "warnings",
        "prumerge.frames",
        "prumerge.reducers._merging",
        "prumerge.ops",
        "prumerge.places",
        "prumerge.reducer",
        "prumerge.tokens",
    }


@pytest.mark.parametrize("path", METHODS, ids=named)
def test_a_method_is_one_short_file_with_one_class(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert sum(isinstance(node, ast.ClassDef) for node in ast.parse(text).body) == 1


@pytest.mark.parametrize("path", [*FAMILIES, *SHARED, ROOT / "vision.py"], ids=named)
def test_a_model_family_knows_tokens_and_no_method(path):
    known = {
        "prumerge.tokens",
        "prumerge.ops",
        "prumerge.models._vision",
        "prumerge.models",
    }
    assert {name for name in ours(path) if not name.startswith("prumerge.models.")} <= known


@pytest.mark.parametrize("name", ["tokens", "ops", "catalogue"])
def test_the_ground_floor_stands_on_nothing_of_ours(name):
    assert ours(ROOT / f"{name}.py") <= {"prumerge.tokens"} - {f"prumerge.{name}"}


def test_reducers_stand_on_tokens_and_operations():
    known = {"prumerge.tokens", "prumerge.ops", "prumerge.catalogue", "prumerge.temporal"}
    assert ours(ROOT / "reducer.py") <= known
    for base in ("merging", "frames", "places"):
        assert ours(ROOT / f"{base}.py") <= {"prumerge.tokens", "prumerge.ops", "prumerge.reducer"}
    assert ours(ROOT / "temporal.py") <= {"prumerge.tokens", "prumerge.frames", "prumerge.reducer"}


def test_splicing_reaches_methods_and_families_by_name_only():
    common = {f"prumerge.{name}" for name in ("tokens", "ops", "reducer", "places", "models")}
    assert ours(ROOT / "splice.py") <= common
    assert ours(ROOT / "text_tower.py") <= {"prumerge.tokens", "prumerge.ops"}
    assert ours(ROOT / "binding.py") == set()
    assert ours(ROOT / "layout.py") <= common
    for part in ("looking", "masks"):
        assert ours(ROOT / f"{part}.py") <= {"prumerge.layers.layout"}
    parts = {f"prumerge.{name}" for name in ("binding", "layout", "looking", "masks")}
    assert ours(ROOT / "inside.py") <= common | parts
    assert ours(ROOT / "attachment.py") <= common | {f"prumerge.{x}" for x in ("binding", "splice", "inside")}


@pytest.mark.parametrize("path", [*(ROOT / f"{name}.py" for name in CORE), *METHODS, *FAMILIES], ids=named)
def test_the_core_knows_no_application(path):
    known = {f"prumerge.{name}" for name in (*CORE, "models", "reducers")}
    assert {name for name in ours(path) if not name.startswith("prumerge.models.")} <= known


@pytest.mark.parametrize("name", ["tokens", "ops", "reducer", "merging", "frames", "places", "catalogue"])
def test_methods_need_no_transformers(name):
    assert "transformers" not in {module.split(".")[0] for module in imports(ROOT / f"{name}.py")}


@pytest.mark.parametrize("path", sorted((ROOT / "roofline").glob("*.py")), ids=named)
def test_the_roofline_stands_alone_and_needs_torch_only_to_verify(path):
    assert all(name.startswith("prumerge.roofline") for name in ours(path))
    heavy = {"torch", "transformers"} & {module.split(".")[0] for module in imports(path)}
    assert not heavy or path.stem == "verify"


def test_nobody_asks_which_method_it_is():
    classes = {"Reducer", "Chain", "AttentionMerging", "FrameByFrame", "TowerReducer", "LayerReducer"}
    for path in METHODS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes |= {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"isinstance", "issubclass"}:
                asked = {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node.args[1])}
                assert path.name == "reducer.py" or not asked & classes, f"{path}:{node.lineno}"


# the public names


@pytest.mark.parametrize("name", prumerge.__all__)
def test_a_public_name_is_there(name):
    assert callable(getattr(prumerge, name))


def test_the_list_of_names_is_that_of_the_package():
    assert set(dir(prumerge)) == {*prumerge.__all__, "__version__"}
    assert prumerge.__all__ == sorted(prumerge.__all__)


def test_a_name_that_is_not_there_says_so():
    with pytest.raises(AttributeError, match="module 'prumerge' has no attribute 'magic'"):
        prumerge.magic  # noqa: B018


def test_no_module_hides_a_public_name():
    assert not {path.stem for path in ROOT.iterdir()} & set(prumerge.__all__)


def test_type_checkers_see_the_names_that_are_imported_late():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: line.module for line in block.body for alias in line.names}
    assert seen == {name: f"prumerge.{home}" for name, home in prumerge._HOMES.items()}
    assert sorted(seen) == prumerge.__all__


def test_importing_the_package_and_listing_methods_does_not_import_torch():
    code = (
        "import sys, prumerge; from prumerge import catalogue; "
        "assert prumerge.names() and catalogue.entries() and catalogue.all_families() and dir(prumerge); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# names of files, descriptions of methods


def test_methods_and_families_are_the_names_of_their_files():
    assert prumerge.names() == tuple(map(named, METHODS))
    assert families() == tuple(map(named, FAMILIES))


@pytest.mark.parametrize("name", families())
def test_a_family_provides_what_splicing_needs(name):
    family = family_of(name)
    assert isinstance(family, Family)
    assert family.inputs[0] == "pixel_values"
    path = ROOT / "models" / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("name", families())
def test_a_family_is_described(name):
    told = catalogue.family(name)
    assert told.summary.endswith(".")
    family = family_of(name)
    assert (told.takes, told.attention, told.reduced) == (family.takes, family.attention, family.reduced)


@pytest.mark.parametrize("name", prumerge.names())
def test_the_catalogue_reads_what_the_class_says(name):
    entry, kind = catalogue.entry(name), type(prumerge.make(name))
    assert is_dataclass(kind)
    for fact in ("paper", "place", "needs", "training_free", "adaptive", "video"):
        assert getattr(entry, fact) == getattr(kind, fact)
    assert [option.name for option in entry.options] == [field.name for field in fields(kind)]
    for option, field in zip(entry.options, fields(kind), strict=True):
        assert field.default is not MISSING
        if isinstance(field.default, str):
            default = option.default
        else:
            default = eval({"none": "None", "on": "True", "off": "False"}.get(option.default, option.default))
        assert default == field.default


@pytest.mark.parametrize("name", prumerge.names())
def test_the_catalogue_lists_the_choices_of_an_option(name):
    hints = typing.get_type_hints(type(prumerge.make(name)))
    for option in catalogue.entry(name).options:
        choices = [
            choice
            for part in (hints[option.name], *typing.get_args(hints[option.name]))
            if typing.get_origin(part) is typing.Literal
            for choice in typing.get_args(part)
        ]
        assert set(choices) <= set(option.type.split(" | "))
        assert (type(None) in typing.get_args(hints[option.name])) == ("none" in option.type.split(" | "))


@pytest.mark.parametrize("name", prumerge.names())
def test_every_method_and_option_is_described(name):
    entry = catalogue.entry(name)
    assert entry.summary.endswith(".")
    assert entry.description.startswith(entry.summary)
    assert all(len(option.meaning) > 10 for option in entry.options)
    assert not entry.paper or entry.paper.startswith("https://")
