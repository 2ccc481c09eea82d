"""What methods and model families there are, and what they say of themselves, read from their source.

Nothing is imported for it, neither torch nor the files: a class's fields, and those of the classes it derives
from wherever they are written, are found by following the imports at the head of each file.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from prumerge.errors import PrumergeError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_PACKAGE = Path(__file__).parent


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
    return tuple(sorted(path.stem for path in (_PACKAGE / "reducers").glob("[!_]*.py")))


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
    """The description of one method; one that cannot be read says so, and has no options."""
    point = added().get(name)
    value = f"prumerge.reducers.{name}" if point is None else point.value
    module, _, kind = value.partition(":")
    try:
        return _described(name, _class(module.strip(), kind.strip()))
    except (OSError, SyntaxError, ValueError, RecursionError):
        package = "prumerge" if point is None else point.dist.name if point.dist else module
        text = f"A method of the package {package}, whose source cannot be read."
        return Entry(
            name, text, text, "", "", "", training_free=False, adaptive=False, video=False, options=()
        )


def entries() -> list[Entry]:
    """The descriptions of all methods."""
    return [entry(name) for name in names()]


@dataclass(frozen=True)
class FamilyEntry:
    """One model family as its file describes it."""

    name: str
    summary: str
    takes: str
    attention: str
    """Whose attention scores the tokens."""
    reduced: str
    """Where tokens are reduced."""


@cache
def families() -> tuple[str, ...]:
    """The model types that are supported: the file names in `prumerge/models/`."""
    return tuple(sorted(path.stem for path in (_PACKAGE / "models").glob("[!_]*.py")))


def family(name: str) -> FamilyEntry:
    """The description of one family: its file's first paragraph, and the words in `FAMILY = Family(...)`."""
    tree = _tree(f"prumerge.models.{name}")
    (made,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FAMILY"
    )
    assert isinstance(made, ast.Call)
    words = {word.arg: word.value for word in made.keywords}
    told = {fact: ast.literal_eval(words[fact]) for fact in ("takes", "attention", "reduced")}
    summary = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    return FamilyEntry(name, summary, **told)


def all_families() -> list[FamilyEntry]:
    """The descriptions of all families."""
    return [family(name) for name in families()]


# Reading classes without importing them


@dataclass(frozen=True)
class _Class:
    """A class as it is written, and the module in which."""

    module: str
    node: ast.ClassDef


@dataclass(frozen=True)
class _Member:
    """A field of a class, or, without a type, a constant."""

    default: ast.expr | None
    type: ast.expr | None = None
    meaning: str = ""


_ROOT = ("prumerge.reducer", "Reducer")
"""What every method derives from."""


def _described(name: str, found: _Class) -> Entry:
    """What a class says of itself; ValueError if it is no method, or its constants are not written out."""
    lineage = list(_lineage(found))
    if not any((each.module, each.node.name) == _ROOT for each in lineage):
        raise PrumergeError(f"{found.node.name} in {found.module} does not derive from Reducer")
    members: dict[str, _Member] = {}
    for each in lineage:
        for key, member in _members(each.node):
            if member.type or not (key in members and members[key].type):  # else no default of a field
                members[key] = member
    facts = {fact.name for fact in fields(Entry)}
    constants = {
        key: ast.literal_eval(member.default)
        for key, member in members.items()
        if member.default and not member.type and key in facts
    }
    options = tuple(
        Option(key, _spoken(member.type), _spoken(member.default), member.meaning)
        for key, member in members.items()
        if member.type
    )
    text = ast.get_docstring(found.node) or ""
    return Entry(name, text.partition("\n")[0], text, options=options, **constants)


def _lineage(found: _Class) -> Iterator[_Class]:
    """The classes that one derives from, as far as they can be read, and last the class itself: in the order
    in which dataclasses collect fields."""
    for base in reversed(found.node.bases):
        try:
            above = _class(found.module, ast.unparse(base).partition("[")[0])
        except (OSError, SyntaxError, ValueError):
            continue  # not written in Python, or built in
        yield from _lineage(above)
    yield found


def _class(module: str, name: str) -> _Class:
    """The class that a module calls so, wherever it is written; without a name, the module's first dataclass.

    Raises ValueError if there is none, OSError or SyntaxError if a file on the way cannot be read.
    """
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (node.name == name if name else node.decorator_list):
            return _Class(module, node)
    first, *rest = name.split(".")
    for known, full in _imports(module, tree):
        if known == first:
            home, _, kind = ".".join([full, *rest]).rpartition(".")
            if home and (home, kind) != (module, name):
                return _class(home, kind)
    raise PrumergeError(f"there is no class {name} in {module}")


def _imports(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module imports anywhere: the names it has there, and the whole names."""
    is_package = _path(module).name == "__init__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    (alias.name if alias.asname else alias.name.partition(".")[0]),
                )
        elif isinstance(node, ast.ImportFrom):
            up = node.level - is_package
            above = module.rsplit(".", up)[0] if up > 0 else module
            home = ".".join(part for part in (above if node.level else "", node.module or "") if part)
            for alias in node.names:
                yield alias.asname or alias.name, f"{home}.{alias.name}"


def _tree(module: str) -> ast.Module:
    return _parsed(_path(module))


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _path(module: str) -> Path:
    """The file of a module, found without importing it or its packages; ValueError if there is none."""
    top, *rest = module.split(".")
    found = find_spec(top) if top else None
    if found is None:
        raise PrumergeError(f"there is no package {top!r}")
    if not rest and found.origin and not found.submodule_search_locations:
        return Path(found.origin)
    for folder in found.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path / "__init__.py", path.parent / f"{path.name}.py"):
            if file.is_file():
                return file
    raise PrumergeError(f"there is no module {module}")


def _members(kind: ast.ClassDef) -> Iterator[tuple[str, _Member]]:
    """The fields and constants that a class itself has; the text below a field is its meaning."""
    for node, after in zip(kind.body, [*kind.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, _Member(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if "ClassVar" in ast.unparse(node.annotation):
                yield node.target.id, _Member(node.value)
                continue
            told = after.value if isinstance(after, ast.Expr) else None
            text = told.value if isinstance(told, ast.Constant) and isinstance(told.value, str) else ""
            meaning = " ".join(inspect.cleandoc(text).split())
            yield node.target.id, _Member(_default(node.value), node.annotation, meaning)


def _default(value: ast.expr | None) -> ast.expr | None:
    """What a field is by default: of `field(default=...)` what it says there."""
    if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "field":
        return next((word.value for word in value.keywords if word.arg == "default"), None)
    return value


def _spoken(node: ast.expr | None) -> str:
    """A type or default as users write it: `Literal['a', 'b'] | None` is a | b | none."""
    match node:
        case None:
            return "needed"
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{_spoken(left)} | {_spoken(right)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=choices)):
            return " | ".join(map(_spoken, choices))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choice):
            return _spoken(choice)
        case ast.Name(id="bool"):
            return "on | off"
        case ast.Constant(value=None):
            return "none"
        case ast.Constant(value=True):
            return "on"
        case ast.Constant(value=False):
            return "off"
        case ast.Constant(value=str(text)):
            return text
        case _:
            return ast.unparse(node)
