"""Answers on disk: one JSON line each, flushed as they come, so that a run can be killed anywhere.

The first line holds the settings; the same file continues only under the same settings.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any


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
    tokens_kept: int
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
    """A file of records, opened to read what is there and to append."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Raises ValueError if the file was made with other settings, OSError if it cannot be written."""
        self.path = path
        self.repaired = 0
        """Bytes of an unfinished last line that were cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size:
            self.repaired = repair(path)
        if path.exists() and path.stat().st_size:
            before, self.records = read(path)
            different = [name for name in {**settings, **before} if settings.get(name) != before.get(name)]
            if different:
                changes = "; ".join(
                    f"{name} was {before.get(name)}, now {settings.get(name)}" for name in different
                )
                raise ValueError(f"{path} was made with other settings ({changes}); choose another --output")
            self.file: IO[str] = path.open("a", encoding="utf-8")
        else:
            self.records = []
            self.file = path.open("w", encoding="utf-8")
            self._write({"settings": settings})

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def append(self, record: Record) -> None:
        """Write one answer through to the file. OSError names the file and what is safe in it."""
        self._write(asdict(record))
        self.records.append(record)

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.file.flush()
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written ({error.strerror}); the {len(self.records)} answers before "
                "are safe in it, and the same command continues from there"
            ) from error


def read(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Settings and records of a finished or interrupted run. Raises ValueError if it is no such file."""
    if not path.is_file():
        raise ValueError(f"there are no answers at {str(path)!r}")
    first, *rest = path.read_text(encoding="utf-8").splitlines() or [""]
    try:
        return json.loads(first)["settings"], [Record(**json.loads(line)) for line in rest]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is no file of answers ({error})") from None


def by_method(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by their method's label, in the order of first appearance, each sorted by question."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.method].append(record)
    return {label: sorted(rows, key=lambda record: record.id) for label, rows in groups.items()}


def repair(path: Path) -> int:
    """Cut off a last line that a kill left unfinished; how many bytes that were."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return len(data) - whole
