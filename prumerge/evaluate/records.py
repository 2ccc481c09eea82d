"""Answers on disk: one JSON line each, flushed as they come, so that a run can be killed anywhere.

The first line holds the settings; the same file continues only under the same settings.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prumerge.errors import PrumergeError


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
        """Raises ValueError if the file was made with other settings or is no such file."""
        self.path = path
        self.records: list[Record] = []
        header = _line({"settings": settings})
        data = path.read_bytes() if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.repaired = len(data) - len(whole)
        """Bytes of an unfinished last line that were cut off."""
        if whole or not header.startswith(data):
            before, self.records = read(path)
            different = [name for name in {**settings, **before} if settings.get(name) != before.get(name)]
            if different:
                changes = "; ".join(
                    f"{name} was {before.get(name)}, now {settings.get(name)}" for name in different
                )
                raise PrumergeError(
                    f"{path} was made with other settings ({changes}); choose another --output"
                )
        if self.repaired:
            os.truncate(path, len(whole))
        self._header = b"" if whole else header  # goes before the first answer

    def append(self, record: Record) -> None:
        """Write one answer through to the file. OSError names the file and what is safe in it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(self._header + _line(asdict(record)))
        except OSError as error:
            safe = f"; {len(self.records)} answers are safe in it, the same command goes on from there"
            raise OSError(
                f"{self.path} cannot be written ({error.strerror}){safe if self.records else ''}"
            ) from error
        self._header = b""
        self.records.append(record)


def read(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Settings and records of a finished or interrupted run; an unfinished last line is passed over.

    Raises ValueError if it is no such file.
    """
    if not path.is_file():
        raise PrumergeError(f"there are no answers at {str(path)!r}")
    first, *rest = path.read_bytes().split(b"\n")[:-1] or [b""]
    try:
        settings, records = json.loads(first)["settings"], [Record(**json.loads(line)) for line in rest]
    except (ValueError, KeyError, TypeError) as error:
        raise PrumergeError(f"{str(path)!r} is no file of answers ({error})") from None
    # Two runs at once may have asked the same.
    return settings, list({record.key: record for record in records}.values())


def by_method(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by their method's label, in the order of first appearance, each sorted by question."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.method].append(record)
    return {label: sorted(rows, key=lambda record: record.id) for label, rows in groups.items()}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
