"""Answers on disk: one JSON line each, flushed as they come, so that a run can be killed anywhere.

The first line holds the settings; the same file continues only under the same settings.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from prumerge.errors import PrumergeError, short, unknown

# What each benchmark is scored by, and the public benchmark that it mirrors.
MEASURES = {
    "attribute": ("VQA accuracy", "VQAv2"),
    "choice": ("accuracy", "ScienceQA"),
    "reading": ("VQA accuracy", "TextVQA"),
    "existence": ("mean F1 of 3 splits", "POPE"),
    "perception": ("accuracy + acc+, summed over subtasks", "MME"),
    "circular": ("all rotations right", "MMBench"),
    "video": ("accuracy", "clips of 8 frames"),
}


@dataclass(frozen=True)
class Record:
    """One answer."""

    benchmark: str
    id: str
    picture: int
    method: str
    """The label under which it is reported, such as prumerge@36."""
    spec: str
    """The reducer that ran, such as prumerge:keep=35."""
    question: str
    gold: str
    prediction: str
    score: float
    split: str
    group: str
    options: int
    tokens_in: int
    tokens_kept: float
    """That the language model read; on average over its layers where a method prunes between them."""
    encode_ms: float
    """This and the other times: those of the batch, divided by its questions."""
    reduce_ms: float
    prefill_ms: float
    decode_ms: float

    @property
    def key(self) -> tuple[str, str]:
        """What is never asked twice."""
        return self.method, self.id


class Log:
    """A file of records: read what is there, append what is new."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Raises PrumergeError if the file was made with other settings, is no such file, or is not to be
        written to."""
        self.path = path
        self.records: list[Record] = []
        header = _line({"settings": settings})
        data = _bytes(path) if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.repaired = len(data) - len(whole)
        """Bytes of an unfinished last line that were cut off."""
        if whole or not header.startswith(data):
            before, self.records = read(path)
            if changes := differences(before, settings):
                raise PrumergeError(
                    f"{path} was made with other settings ({changes}); choose another --output"
                )
        if path.exists():
            with self._writing() as file:
                if self.repaired:
                    file.truncate(len(whole))
        self._header = b"" if whole else header  # goes before the first answer

    def append(self, *records: Record) -> None:
        """Write answers through to the file. PrumergeError names the file and what is safe in it."""
        with self._writing() as file:
            file.write(self._header + b"".join(_line(asdict(record)) for record in records))
        self._header = b""
        self.records += records

    @contextmanager
    def _writing(self) -> Iterator[BinaryIO]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                yield file
        except OSError as error:
            safe = f"{len(self.records)} answers are safe in it, the same command goes on from there"
            raise PrumergeError(
                f"{self.path} cannot be written ({error.strerror}); "
                f"{safe if self.records else 'choose another --output'}"
            ) from error


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How the settings of a run differ from those it was started with; empty where they do not."""
    different = [name for name in {**now, **before} if now.get(name) != before.get(name)]
    return "; ".join(f"{name} was {before.get(name)}, now {now.get(name)}" for name in different)


def read(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Settings and records of a finished or interrupted run; an unfinished last line is passed over.

    Raises PrumergeError if it is no such file, naming the line.
    """
    if not path.is_file():
        raise PrumergeError(f"there are no answers at {str(path)!r}; name a folder that `evaluate` wrote")
    first, *rest = _bytes(path).split(b"\n")[:-1] or [b""]
    header = _parsed(first)
    settings = header.get("settings") if isinstance(header, dict) else None
    if not isinstance(settings, dict):
        raise PrumergeError(
            f"{str(path)!r} is no file of answers: line 1 holds no settings; name one that `evaluate` wrote"
        )
    records = [_record(line, f"{path}, line {number}") for number, line in enumerate(rest, 2)]
    # Two runs at once may have asked the same.
    return settings, list({record.key: record for record in records}.values())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PrumergeError(f"{str(path)!r} cannot be read ({error.strerror}); name another") from None


def _parsed(line: bytes) -> Any:
    """What a line holds; None where it is no JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _record(line: bytes, place: str) -> Record:
    """The answer in a line; PrumergeError, saying what is wrong with it, if it holds none."""
    value = _parsed(line)
    if not isinstance(value, dict):
        shown = short(line.decode(errors="replace"), 30)
        raise PrumergeError(f"{place}: {shown!r} is no answer; take the line out, or run evaluate anew")
    known = {field.name: _KINDS[str(field.type)] for field in fields(Record)}
    for name in (*known, *value):
        if name not in known or name not in value:
            state = "is not known" if name not in known else "is missing"
            raise PrumergeError(f"{place}: {short(name)!r} {state}; take the line out, or run evaluate anew")
        if not isinstance(value[name], known[name]) or isinstance(value[name], bool):
            raise PrumergeError(
                f"{place}: {name} cannot be {short(repr(value[name]), 30)}; take the line out, or run "
                "evaluate anew"
            )
    if value["benchmark"] not in MEASURES:
        raise PrumergeError(f"{place}: {unknown('benchmark', value['benchmark'], list(MEASURES))}")
    return Record(**value)


_KINDS: dict[str, Any] = {"str": str, "int": int, "float": (int, float)}


def by_method(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by their method's label, in the order of first appearance, each sorted by question."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.method].append(record)
    return {label: sorted(rows, key=lambda record: record.id) for label, rows in groups.items()}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
