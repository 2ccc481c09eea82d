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
MODULES = sorted(ROOT.rglob("*.py"))
METHODS = sorted((ROOT / "reducers").glob("[!_]*.py"))
FAMILIES = sorted((ROOT / "models").glob("[!_]*.py"))


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Every module that a file imports, at its top or later; `from prumerge import ops` is prumerge.ops."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "prumerge":
                found |= {f"prumerge.{alias.name}" for alias in node.names}
            elif node.module:
                found.add(node.module)
    return found


def length(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def named(path):
    return path.stem


# who imports whom: the directions between rooms are import-linter's


def test_imports_go_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run(
        [linter, "--no-cache", "--config", ROOT.parent / "pyproject.toml"],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


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
        "prumerge.errors",
        "prumerge.ops",
        "prumerge.reducer",
        "prumerge.reducers._covering",
        "prumerge.reducers._merging",
        "prumerge.reducers._selector",
        "prumerge.reduction",
        "prumerge.tokens",
    }


@pytest.mark.parametrize("path", METHODS, ids=named)
def test_a_method_is_one_short_file_with_one_class(path):
    assert length(path) <= 150
    assert sum(isinstance(node, ast.ClassDef) for node in parsed(path).body) == 1


@pytest.mark.parametrize("path", FAMILIES, ids=named)
def test_a_family_is_one_short_file(path):
    assert length(path) <= 150


def test_files_are_short():
    long = {path.relative_to(ROOT).as_posix() for path in MODULES if length(path) > 400}
    assert not {path for path in long if not path.startswith("tiny/")}


def test_the_root_of_the_package_has_few_modules():
    assert len([path for path in ROOT.glob("*.py") if not path.stem.startswith("__")]) <= 10


@pytest.mark.parametrize("path", sorted((ROOT / "roofline").glob("*.py")), ids=named)
def test_the_roofline_needs_torch_only_to_verify(path):
    heavy = {"torch", "transformers"} & {module.split(".")[0] for module in imports(path)}
    assert not heavy or path.stem == "verify"


def test_nobody_asks_which_method_it_is():
    homes = [ROOT / "reducer.py", ROOT / "compose.py", *(ROOT / "reducers").glob("*.py")]
    classes = {node.name for path in homes for node in parsed(path).body if isinstance(node, ast.ClassDef)}
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"isinstance", "issubclass"}:
                asked = {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node.args[1])}
                # `make` tells a method from its text, and takes classes of other packages that are methods
                allowed = {"Reducer"} if path.name == "spec.py" else set()
                assert not asked & classes - allowed, f"{path}:{node.lineno}"


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
    (block,) = (node for node in parsed(ROOT / "__init__.py").body if isinstance(node, ast.If))
    imported = [line for line in block.body if isinstance(line, ast.ImportFrom)]
    seen = {alias.name: line.module for line in imported for alias in line.names}
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
