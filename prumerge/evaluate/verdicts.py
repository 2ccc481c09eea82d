"""What a judge said of answers: in a file of its own beside them, never among their scores.

Equal answers to a question are asked about once, so methods that answer alike are judged alike. A reply is
kept as it came and read anew for each report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import fmean
from threading import Event, Thread
from typing import Any, TypeAlias, TypeVar

from prumerge.errors import PrumergeError, short
from prumerge.evaluate.judge import AT_ONCE, Judge, Verdict, read
from prumerge.evaluate.lines import Lines
from prumerge.evaluate.records import Record
from prumerge.evaluate.report import tasks
from prumerge.evaluate.statistics import Comparison, compare, holm
from prumerge.evaluate.tasks import names, task

T = TypeVar("T")
R = TypeVar("R")
Asked: TypeAlias = tuple[str, tuple[str, ...], str]
"""A question, its right answers, and the prediction."""


class Verdicts:
    """The replies of one judge, on disk."""

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None) -> None:
        """`settings` are those of the judge that will be asked for more; None: only what is there is read.

        Raises PrumergeError for a file of another judge, of other settings, or that is no such file.
        """
        self._lines = Lines(path)
        header, *rows = self._lines.rows or [{"settings": settings}]
        self.settings: Mapping[str, Any] = header.get("settings") or {}
        if "judge" not in self.settings:
            raise PrumergeError(f"{path} is no file of verdicts: line 1 holds no judge; move it away")
        if settings is not None and (told := _differences(self.settings, settings)):
            raise PrumergeError(f"{path} was made with other settings ({'; '.join(told)}); move it away")
        try:
            self.replies = {_asked(row): str(row["reply"]) for row in rows}
        except (KeyError, TypeError):
            raise PrumergeError(
                f"{path} holds a line that is no verdict; take it out, or move the file away"
            ) from None

    @property
    def path(self) -> Path:
        return self._lines.path

    @property
    def judge(self) -> str:
        """The name of its model."""
        return str(self.settings["judge"])

    def add(self, asked: Asked, reply: str) -> None:
        """Keep a reply. Raises PrumergeError where the file cannot be written."""
        question, gold, prediction = asked
        header = [] if self._lines.rows else [{"settings": self.settings}]
        row = {"question": question, "gold": gold, "prediction": prediction, "reply": reply}
        self._lines.append(*header, row)
        self.replies[asked] = reply

    def of(self, record: Record) -> Verdict | None:
        """What the judge said of an answer; None where it was not asked, or said neither yes nor no."""
        return read(self.replies.get(asked_of(record), ""))


def file_of(folder: Path, judge: str) -> Path:
    """Where a judge's verdicts are, in a folder of answers."""
    return folder / f"verdicts-{re.sub(r'[^A-Za-z0-9._-]+', '-', judge)}.jsonl"


def files_in(folder: Path) -> list[Path]:
    """The verdicts of all judges, but for files without a finished line."""
    return sorted(one for one in folder.glob("verdicts-*.jsonl") if b"\n" in one.read_bytes())


def asked_of(record: Record) -> Asked:
    """What of an answer a judge is told."""
    return record.question, record.gold, record.prediction


def check_judged(given: Sequence[str]) -> None:
    """Raise PrumergeError where no answer of these tasks is a judge's business."""
    if not any(task(name).judged for name in given):
        there = ", ".join(name for name in names() if task(name).judged)
        raise PrumergeError(
            f"{', '.join(given)}: no task whose answers are judged; leave --judge out, or take one of: "
            + there
        )


def ask_judge(
    judge: Judge, records: Sequence[Record], verdicts: Verdicts, track: Callable[[int, int], None]
) -> None:
    """Have every answer judged that is not yet; `track` is told how many more are and how many will be.

    Raises PrumergeError where the judge fails, with what is safe.
    """
    asked = list(dict.fromkeys(asked_of(one) for one in records if task(one.task).judged))
    left = [one for one in asked if one not in verdicts.replies]
    track(len(asked) - len(left), len(asked))
    try:
        for one, reply in at_once(lambda one: judge.ask(*one), left, AT_ONCE):
            verdicts.add(one, reply)
            track(1, len(asked))
    except PrumergeError as error:
        raise PrumergeError(
            f"{error}; {len(verdicts.replies)} of {len(asked)} verdicts and all {len(records)} answers are "
            f"safe in {verdicts.path.parent}, and the same command goes on from there"
        ) from error


def at_once(work: Callable[[T], R], things: Sequence[T], count: int) -> Iterator[tuple[T, R]]:
    """`work` of each thing as it is done, up to `count` at a time; the first error ends it.

    Nobody waits for what is still under way then: these threads end with the program.
    """
    todo: SimpleQueue[T] = SimpleQueue()
    done: SimpleQueue[tuple[T, R] | BaseException] = SimpleQueue()
    stopped = Event()
    for one in things:
        todo.put(one)

    def run() -> None:
        while not stopped.is_set():
            try:
                one = todo.get_nowait()
            except Empty:
                return
            try:
                done.put((one, work(one)))
            except BaseException as error:
                done.put(error)

    threads = [Thread(target=run, daemon=True) for _ in range(min(count, len(things)))]
    for thread in threads:
        thread.start()
    try:
        for _ in things:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stopped.set()


@dataclass(frozen=True)
class Judged:
    """One method's answers to one task, as a judge sees them."""

    judge: str
    method: str
    task: str
    right: float | None
    """Percent of yes among yes and no; None where there is neither."""
    score: float | None
    """Mean, 0 to 5."""
    verdicts: int
    unread: int
    """Replies that say neither yes nor no with a score; they count nowhere."""
    unasked: int
    against_none: Comparison | None
    """Yes and no, over questions of which both were judged; p corrected over the methods of the task."""


def judged(groups: Mapping[str, Sequence[Record]], verdicts: Verdicts) -> list[Judged]:
    """For each method and each task that was judged, in the order given."""
    found = []
    for name in tasks(record for records in groups.values() for record in records):
        if not task(name).judged:
            continue
        own = {label: [one for one in records if one.task == name] for label, records in groups.items()}
        base = _rights(own.get("none", []), verdicts)
        rows = [
            _judged(label, name, records, verdicts, {} if label == "none" else base)
            for label, records in own.items()
            if any(asked_of(record) in verdicts.replies for record in records)
        ]
        p = iter(holm([row.against_none.p for row in rows if row.against_none]))
        found += [
            replace(row, against_none=replace(row.against_none, p=next(p))) if row.against_none else row
            for row in rows
        ]
    return found


def columns_of(opinions: Mapping[str, Sequence[Judged]]) -> dict[str, dict[str, object]]:
    """Columns of a table with a line for each method, named by task and judge; what is in them by method."""
    columns: dict[str, dict[str, object]] = {}
    for judge, rows in opinions.items():
        for row in rows:
            told = {"% yes": row.right, "mean of 0-5": row.score, "unread": row.unread}
            for name, value in told.items():
                column = columns.setdefault(f"{row.task}: {name}, judged by {judge}", {})
                column[row.method] = "" if value is None else value
    return columns


def _rights(records: Sequence[Record], verdicts: Verdicts) -> dict[tuple[str, str], bool]:
    """By question whether it was answered rightly, of those that the judge said it of."""
    said = {record.place: verdicts.of(record) for record in records}
    return {place: verdict.right for place, verdict in said.items() if verdict is not None}


def _judged(
    label: str,
    name: str,
    records: Sequence[Record],
    verdicts: Verdicts,
    base: Mapping[tuple[str, str], bool],
) -> Judged:
    asked = [record for record in records if asked_of(record) in verdicts.replies]
    read_ = [(record, verdict) for record in asked if (verdict := verdicts.of(record)) is not None]
    both = [(record, verdict) for record, verdict in read_ if record.place in base]
    return Judged(
        judge=verdicts.judge,
        method=label,
        task=name,
        right=100 * fmean(verdict.right for _, verdict in read_) if read_ else None,
        score=fmean(verdict.score for _, verdict in read_) if read_ else None,
        verdicts=len(read_),
        unread=len(asked) - len(read_),
        unasked=len(records) - len(asked),
        against_none=compare(
            [verdict.right for _, verdict in both],
            [base[record.place] for record, _ in both],
            [record.cluster for record, _ in both],
        )
        if both
        else None,
    )


def _asked(row: Mapping[str, Any]) -> Asked:
    return str(row["question"]), tuple(row["gold"]), str(row["prediction"])


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {short(str(before.get(name)), 40)}, now {short(str(now.get(name)), 40)}"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]
