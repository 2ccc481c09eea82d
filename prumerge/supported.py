"""What model families are supported and how, read from their files without importing torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Facts:
    """One family as its file describes it."""

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
    return tuple(sorted(path.stem for path in _FOLDER.glob("[!_]*.py")))


def facts(name: str) -> Facts:
    """The description of one family."""
    tree = ast.parse((_FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    family = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FAMILY"
    )
    assert isinstance(family, ast.Call)
    words = {word.arg: word.value for word in family.keywords}
    takes, attention, reduced = (
        str(ast.literal_eval(words[fact])) for fact in ("takes", "attention", "reduced")
    )
    summary = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    return Facts(name, summary, takes, attention, reduced)


def all_facts() -> list[Facts]:
    """The descriptions of all families."""
    return [facts(name) for name in families()]
