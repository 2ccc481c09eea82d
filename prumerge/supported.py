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
    told = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("TAKES", "ATTENTION", "REDUCED")
    }
    summary = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    return Facts(name, summary, told["TAKES"], told["ATTENTION"], told["REDUCED"])


def all_facts() -> list[Facts]:
    """The descriptions of all families."""
    return [facts(name) for name in families()]
