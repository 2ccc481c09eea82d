"""What methods there are and what their options mean, read from their source without importing torch."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

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
    adaptive: bool
    options: tuple[Option, ...]


@cache
def names() -> tuple[str, ...]:
    """Every method: the file names in `prumerge/reducers/`."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_")))


def entry(name: str) -> Entry:
    """The description of one method."""
    kind = _dataclass(_FOLDER / f"{name}.py", None)
    text = ast.get_docstring(kind) or ""
    members = _members(kind)
    facts = {fact.name for fact in fields(Entry)}
    constants = {key: ast.literal_eval(members[key].default) for key in members.keys() & facts}
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
    "AttentionMerging": _FOLDER.parent / "merging.py",
    "TowerReducer": _FOLDER.parent / "places.py",
    "LayerReducer": _FOLDER.parent / "places.py",
}


def _dataclass(path: Path, name: str | None) -> ast.ClassDef:
    """A class by its name, or the only one of a method's file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.decorator_list)
    return next(node for node in classes if name in (None, node.name))


def _members(kind: ast.ClassDef) -> dict[str, _Field]:
    """The fields and constants of a class and of those it derives from; the text below one is its meaning."""
    found: dict[str, _Field] = {}
    for base in kind.bases:
        if isinstance(base, ast.Name) and base.id in _BASES:
            found |= _members(_dataclass(_BASES[base.id], base.id))
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
