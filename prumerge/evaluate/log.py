"""Answers on disk: one JSON line each, flushed as they come, so that a run can be killed anywhere.

The first line holds the settings; the same file continues only under the same settings. A later line of
settings adds tasks. Processes that answer together write a file each, and read those of the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from prumerge.errors import PrumergeError
from prumerge.evaluate.records import Record, record_of
from prumerge.evaluate.tasks import DRAWN


class Log:
    """A file of records: read what is there, append what is new."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, together: bool = False) -> None:
        """`together` reads the files of all processes that answered into the same folder, and writes one.

        Raises PrumergeError if a file was made with other settings, is no such file, or is not to be written
        to."""
        self.path = path
        self.records: list[Record] = []
        self._together = together
        data = _bytes(path) if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.repaired = len(data) - len(whole)
        """Bytes of an unfinished last line that were cut off."""
        files = self._files()
        begun = _lines({"settings": settings})[:-2]  # a header that was not finished
        if not (whole or begun.startswith(data) or data.startswith(begun)):
            files.append(path)  # to be refused
        found = [_contents(file) for file in files]
        for file, one in zip(files, found, strict=True):
            if told := differences(one.settings, settings):
                raise PrumergeError(
                    f"{file} was made with other settings ({'; '.join(told)}); choose another --output"
                )
        if path.exists():
            with self._writing() as opened:
                if self.repaired:
                    opened.truncate(len(whole))
        if found:
            self.records = _together(files, found)[1]
        # What goes before the first answer.
        if whole:
            known = found[files.index(path)].settings.get("asked", {})
            new = {name: told for name, told in settings.get("asked", {}).items() if name not in known}
            self._header = _lines({"settings": {"asked": new}}) if new else b""
        else:
            after = {"after": len(files)} if files else {}
            self._header = _lines({"settings": settings, **after})

    def append(self, *records: Record) -> None:
        """Write answers through to the file. PrumergeError names the file and what is safe in it."""
        with self._writing() as file:
            file.write(self._header + _lines(*map(asdict, records)))
        self._header = b""
        self.records += records

    def read_again(self) -> None:
        """Learn what other processes answered since."""
        if files := self._files():
            self.records = _together(files, list(map(_contents, files)))[1]

    def _files(self) -> list[Path]:
        """Those that hold a line at least."""
        if self._together:
            return files_in(self.path.parent)
        return [self.path] if self.path.is_file() and b"\n" in _bytes(self.path) else []

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


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What settings differ in; tasks that only one of them has do not count."""
    if "asked" in now and "asked" not in before:
        before = _as_by_task(before)
    told = [
        f"{name} was {before.get(name)}, now {now.get(name)}"
        for name in {**now, **before}
        if name != "asked" and before.get(name) != now.get(name)
    ]
    for name, asked in now.get("asked", {}).items():
        was = before.get("asked", {}).get(name, {})
        changed = [key for key in was if was[key] != asked.get(key)]
        for key in changed:
            if key != "hash":
                told.append(f"{key} of {name} was {was[key]}, now {asked.get(key)}")
        if changed == ["hash"]:
            told.append(f"the questions of {name} are others now")
    return told


def _as_by_task(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a version that had one number of questions for all tasks, which it drew."""
    left = dict(settings)
    questions, unseen = left.pop("questions", None), left.pop("unseen", False)
    told = {"questions": questions, "options": {"unseen": "yes"} if unseen else {}}
    return {**left, "asked": dict.fromkeys(DRAWN, told) if questions else {}}


def read(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Settings and records of a finished or interrupted run, from a file or all files of a folder; lines that
    were not finished are passed over.

    Raises PrumergeError if it is no such file, naming the line, or for files of different runs.
    """
    files = [path] if path.is_file() else files_in(path) or [path / "answers.jsonl"]
    return _together(files, list(map(_contents, files)))


def file_of(folder: Path, process: int | None = None) -> Path:
    """Where a process writes; None for one that answers alone."""
    return folder / ("answers.jsonl" if process is None else f"answers-{process}.jsonl")


def files_in(folder: Path) -> list[Path]:
    """The files of all processes, oldest first, but for those without a finished line."""
    named = (one for one in folder.glob("answers*.jsonl") if _NAME.fullmatch(one.name) and one.is_file())
    return sorted((one for one in sorted(named) if b"\n" in _bytes(one)), key=_age)


_NAME = re.compile(r"answers(-\d+)?\.jsonl")


def _age(path: Path) -> int:
    """How many files there were before this one."""
    header = _parsed(_bytes(path).partition(b"\n")[0])
    after = header.get("after", 0) if isinstance(header, dict) else 0
    return after if isinstance(after, int) else 0


@dataclass(frozen=True)
class _Contents:
    """What is in a file."""

    settings: dict[str, Any]
    records: list[Record]


def _together(paths: Sequence[Path], contents: Sequence[_Contents]) -> tuple[dict[str, Any], list[Record]]:
    """What is in several files of one run; a question that two of them answered counts once."""
    first, *rest = contents
    for path, other in zip(paths[1:], rest, strict=True):
        if told := differences(other.settings, first.settings):
            raise PrumergeError(f"{path} and {paths[0]} are of different runs ({'; '.join(told)}); part them")
    asked: dict[str, Any] = {}
    for one in contents:
        asked |= one.settings.get("asked", {})
    settings = {**first.settings, **({"asked": asked} if asked else {})}
    return settings, list({record.key: record for one in contents for record in one.records}.values())


def _contents(path: Path) -> _Contents:
    if not path.is_file():
        raise PrumergeError(f"there are no answers at {str(path)!r}; name a folder that `evaluate` wrote")
    first, *rest = _bytes(path).split(b"\n")[:-1] or [b""]
    settings = _settings(_parsed(first))
    if settings is None:
        raise PrumergeError(
            f"{str(path)!r} is no file of answers: line 1 holds no settings; name one that `evaluate` wrote"
        )
    records = []
    for number, line in enumerate(rest, 2):
        value = _parsed(line)
        if (added := _settings(value)) is not None:
            settings["asked"] = {**settings.get("asked", {}), **added.get("asked", {})}
        else:
            records.append(record_of(value, line, f"{path}, line {number}"))
    return _Contents(settings, records)


def _settings(value: Any) -> dict[str, Any] | None:
    found = value.get("settings") if isinstance(value, dict) else None
    return found if isinstance(found, dict) else None


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


def _lines(*values: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)
