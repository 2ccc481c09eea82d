"""What methods there are and what their options mean, read from their source without importing torch."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from prumerge.errors import PrumergeError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_FOLDER = Path(__file__).parent / "reducers"


@dataclass(frozen=True)
class Option:
    """One field of a method."""

    name: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Entry:
    """One method as its file describes it."""

    name: str
    summary: str
    description: str
    paper: str
    place: str
    needs: str
    training_free: bool
    adaptive: bool
    video: bool
    options: tuple[Option, ...]

    def facts(self) -> tuple[str, ...]:
        """What tables say of it, in the order of `FACTS`."""
        yes = {True: "yes", False: ""}
        return (
            self.paper.removeprefix("https://").replace("arxiv.org/abs/", "arXiv "),
            self.place,
            self.needs,
            yes[self.training_free],
            yes[self.adaptive],
            yes[self.video],
        )


FACTS = ("paper", "place", "needs", "training-free", "adaptive", "video")


GROUP = "prumerge.reducers"
"""The entry-point group by which other packages add methods: `name = "module:Class"`."""


@cache
def names() -> tuple[str, ...]:
    """Every method: those of this package, and those that other packages add as entry points."""
    return tuple(sorted({*built_in(), *added()}))


@cache
def built_in() -> tuple[str, ...]:
    """The methods of this package: the file names in `prumerge/reducers/`."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_")))


@cache
def added() -> dict[str, EntryPoint]:
    """The methods of other packages; names of this package are never replaced."""
    from importlib.metadata import entry_points  # 20 ms that only those pay who ask for a method

    return {point.name: point for point in entry_points(group=GROUP) if point.name not in built_in()}


def name_of(module: str, kind: str) -> str:
    """The name that makes a class: as its package calls it, or its file's."""
    called = (name for name, point in added().items() if point.value == f"{module}:{kind}")
    return next(called, module.rpartition(".")[2])


def entry(name: str) -> Entry:
    """The description of one method."""
    if name in built_in():
        return _described(name, _dataclass(_FOLDER / f"{name}.py"))
    point = added()[name]
    try:
        return _described(name, _dataclass(_source(point.module), point.attr))
    except (OSError, SyntaxError, ValueError):
        package = point.dist.name if point.dist else point.module
        text = f"A method of the package {package}, whose source cannot be read."
        return Entry(
            name, text, text, "", "", "", training_free=False, adaptive=False, video=False, options=()
        )


def _described(name: str, kind: ast.ClassDef) -> Entry:
    text = ast.get_docstring(kind) or ""
    members = _members(kind)
    facts = {field.name for field in fields(Entry)}
    constants = {
        key: ast.literal_eval(field.default)
        for key, field in members.items()
        if not field.type and key in facts
    }
    options = tuple(
        Option(key, _plain(field.type), _plain(field.default), field.meaning)
        for key, field in members.items()
        if field.type
    )
    return Entry(name, text.partition("\n")[0], text, options=options, **constants)


def entries() -> list[Entry]:
    """The descriptions of all methods."""
    return [entry(name) for name in names()]


@dataclass(frozen=True)
class _Field:
    type: str  # empty for a constant of the class
    default: str
    meaning: str = ""


# Where the classes that methods derive from are written.
_BASES = {
    "Reducer": _FOLDER.parent / "reducer.py",
    "Adaptive": _FOLDER.parent / "reducer.py",
    "AttentionMerging": _FOLDER / "_merging.py",
    "FrameByFrame": _FOLDER.parent / "reducer.py",
    "TowerReducer": _FOLDER.parent / "reducer.py",
    "LayerReducer": _FOLDER.parent / "reducer.py",
}


def _dataclass(path: Path, name: str | None = None) -> ast.ClassDef:
    """The class of that name in a file, or else its first dataclass; ValueError if there is none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (node.name == name if name else node.decorator_list):
            return node
    raise PrumergeError(f"there is no class {name} in {path}")


def _source(module: str) -> Path:
    """The file of another package's module, found without importing anything; ValueError if there is none."""
    top, *rest = module.split(".")
    found = find_spec(top)
    if found is None or found.origin is None:
        raise PrumergeError(f"there is no package {top}")
    if not found.submodule_search_locations:
        return Path(found.origin)
    path = Path(found.submodule_search_locations[0], *rest)
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def _members(kind: ast.ClassDef) -> dict[str, _Field]:
    """The fields and constants of a class and of those it derives from; the text below one is its meaning."""
    found: dict[str, _Field] = {}
    for base in kind.bases:
        if (called := ast.unparse(base).rpartition(".")[2]) in _BASES:
            found |= _members(_dataclass(_BASES[called], called))
    for node, after in zip(kind.body, [*kind.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = _Field("", ast.unparse(node.value))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            annotation = ast.unparse(node.annotation)
            meaning = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
            found[node.target.id] = _Field(
                "" if "ClassVar" in annotation else annotation,
                ast.unparse(node.value),
                " ".join(inspect.cleandoc(meaning).split()),
            )
    return found


def _plain(python: str) -> str:
    """`Literal['a', 'b'] | None` as users write it: a | b | none."""
    spoken = {"Literal[": "", "]": "", "'": "", ", ": " | ", "bool": "on | off", "None": "none"}
    for code, words in spoken.items():
        python = python.replace(code, words)
    return python
