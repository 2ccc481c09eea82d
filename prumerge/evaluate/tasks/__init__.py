"""The tasks: one file each, named as the task is; files with an underscore hold what tasks share."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from prumerge.errors import PrumergeError, unknown
from prumerge.evaluate.tasks._task import Task

SCENES = ("attribute", "choice", "reading", "existence", "perception", "circular")
"""Tasks about the same drawn scenes, in the order of tables: one key is one picture to all of them."""
DRAWN = (*SCENES, "video", "hard")
"""Tasks that draw their own pictures, as many as are asked for."""


@cache
def names() -> tuple[str, ...]:
    """Every task, those that draw their pictures first. None is imported for it."""
    files = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    return (*DRAWN, *(name for name in files if name not in DRAWN))


@cache
def task(name: str) -> Task:
    """The task of a name. Raises PrumergeError if there is none."""
    if name not in names():
        raise PrumergeError(unknown("task", name, names()))
    found: Task = import_module(f"{__name__}.{name}").TASK
    return found
