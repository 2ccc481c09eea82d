"""What of which tasks is asked: where each reads, and every picture once with all the questions about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

from prumerge.errors import PrumergeError, short
from prumerge.evaluate.tasks import DRAWN, SCENES, task
from prumerge.evaluate.tasks._task import Question, Shown, Source
from prumerge.tiny.benchmarks import WHOLE

Showing: TypeAlias = tuple[Shown, list[Question]]
"""A picture or clip, and all that is asked about it."""


def sources(
    names: Sequence[str],
    questions: int | None = None,
    *,
    unseen: bool = False,
    data: Path | None = None,
    options: Mapping[str, str] | None = None,
) -> dict[str, Source]:
    """Where each task reads, and how many questions at most. `data` holds a folder for each task by its name,
    or is what the only task reads that reads any; each option goes to the tasks that take it.

    Raises PrumergeError for what a task does not take, lacks, or has no use for.
    """
    if unseen and (others := [name for name in names if name not in DRAWN]):
        raise PrumergeError(f"unseen pictures are drawn, and {others[0]} has its own; leave --unseen out")
    _check_count(questions, any(name in DRAWN for name in names))
    given = {**({"unseen": "yes"} if unseen else {}), **(options or {})}
    taken = [{key: given[key] for key in given if key in task(name).options} for name in names]
    if idle := [key for key in given if not any(key in own for own in taken)]:
        there = sorted({key for name in names for key in task(name).options})
        raise PrumergeError(
            f"{', '.join(names)}: no option {short(idle[0])!r}; "
            + (f"choose one of: {', '.join(there)}" if there else "leave --task-option out")
        )
    reading = [name for name in names if task(name).data]
    if data is not None and not reading:
        raise PrumergeError(f"{', '.join(names)}: nothing is read from a folder; leave --data out")
    return {
        name: Source(_place(name, data) if name in reading else None, questions, own)
        for name, own in zip(names, taken, strict=True)
    }


def showings(tasks: Mapping[str, Source]) -> Iterator[Showing]:
    """Everything that is asked: drawn scenes with the questions of all tasks about them, then the pictures of
    the other tasks, task by task in the order of their files.

    Raises PrumergeError for what a task says is wrong with its files, for a task without any question, and
    for two questions with one id.
    """
    found: dict[str, set[str]] = {name: set() for name in tasks}
    for shown, questions in _read(tasks):
        for one in questions:
            if one.id in found[one.task]:
                raise PrumergeError(
                    f"{one.task} has two questions with the id {short(one.id)!r}; mend its file"
                )
            found[one.task].add(one.id)
        yield shown, questions
    if empty := [name for name in tasks if not found[name]]:
        raise PrumergeError(
            f"{empty[0]} finds no questions in {tasks[empty[0]].data}; name another by --data"
        )


def _read(tasks: Mapping[str, Source]) -> Iterator[Showing]:
    scenes = [task(name).read(source) for name, source in tasks.items() if name in SCENES]
    for _, same in groupby(merge(*scenes, key=_key), key=_key):
        first, *rest = same
        yield first[0], [question for _, questions in (first, *rest) for question in questions]
    for name, source in tasks.items():
        if name not in SCENES:
            yield from task(name).read(source)


def described(tasks: Mapping[str, Source], questions: Iterable[Question]) -> dict[str, dict[str, Any]]:
    """What is asked of each task, so that a run goes on only with the same: how many questions, with which
    options, and a hash of their ids, texts and right answers."""
    by_task: dict[str, list[list[Any]]] = {name: [] for name in tasks}
    for one in questions:
        by_task[one.task].append([one.id, one.text, *one.gold])
    return {
        name: {
            "questions": len(asked),
            "options": dict(tasks[name].options),
            "hash": sha256(json.dumps(sorted(asked)).encode()).hexdigest()[:12],
        }
        for name, asked in by_task.items()
    }


def _key(showing: Showing) -> str:
    return showing[1][0].picture


def _check_count(questions: int | None, drawn: bool) -> None:
    if questions is not None and drawn and (questions % WHOLE or questions < WHOLE):
        fewer = max(WHOLE, questions // WHOLE * WHOLE)
        raise PrumergeError(
            f"questions come in groups of {WHOLE}, which keep pairs and rotations whole and answers "
            f"balanced: {fewer} or {fewer + WHOLE}, not {questions}"
        )
    if questions is not None and questions < 1:
        raise PrumergeError(f"at least one question is asked, not {questions}; give another --questions")


def _place(name: str, data: Path | None) -> Path:
    """The folder of one task."""
    if data is None:
        raise PrumergeError(f"{name} reads {task(name).data}; say where that is by --data")
    if not data.exists():
        raise PrumergeError(f"there is no folder {short(str(data))!r}; {name} reads {task(name).data}")
    own = [one for one in data.iterdir() if one.name.casefold() == name] if data.is_dir() else []
    return own[0] if own else data
