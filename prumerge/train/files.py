"""From files of training data to their rows as they are written, and to a fingerprint of them all."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from prumerge.errors import MissingPackage, PrumergeError, short
from prumerge.loading.clips import pictures_in
from prumerge.loading.paths import existing, first_line, shown

_KINDS = ".json, .jsonl, .parquet, .yaml, a folder of pictures"
_STRATEGY = re.compile(r"(first|end|random):(?:(\d+)|(\d+(?:\.\d+)?)%)")


@runtime_checkable
class RawRows(Protocol):
    """Rows as they are written, by their places."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: int, /) -> Any: ...


@dataclass(frozen=True)
class Table:
    """The rows of one file, and which of them are read."""

    name: str
    """Of the file, with a comma and a space behind it; empty for rows given in Python."""
    folder: str
    """Where pictures are looked for."""
    rows: RawRows
    chosen: Sequence[int]
    """Places in `rows`."""


def tables(data: Any, images: str | os.PathLike[str] | None = None) -> tuple[list[Table], str]:
    """Every file of a data set, and its fingerprint: 16 hex digits of the sha256 of what the files hold.

    `images` is the folder that pictures are relative to; without it each file's own. Of rows given in Python
    the fingerprint is that of their JSON, where pictures are known by mode and size and bytes by their
    number; of a folder of pictures, that of their names.
    Raises PrumergeError for what cannot be read, saying where; MissingPackage for parquet without pyarrow.
    """
    if images is not None and not existing(images, "folder of pictures").is_dir():
        raise PrumergeError(f"{shown(images)} is no folder; give the folder that pictures are relative to")
    digest = hashlib.sha256()
    if isinstance(data, str | os.PathLike):
        path = existing(data, "training data")
        if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
            found = list(_listed(path, digest.update))
        else:
            found = [_file(path, digest.update)]
    else:
        found = [_in_memory(data, digest.update)]
    if not sum(len(table.chosen) for table in found):
        raise PrumergeError(f"{_called(data)} no rows; give at least one")
    if images is not None:
        found = [replace(table, folder=os.fspath(images)) for table in found]
    return found, digest.hexdigest()[:16]


def _called(data: Any) -> str:
    return f"{shown(data)} holds" if isinstance(data, str | os.PathLike) else "there are"


def _whole(name: str, folder: str | Path, rows: RawRows) -> Table:
    return Table(name, str(folder), rows, range(len(rows)))


def _file(path: Path, hashed: Callable[[bytes], None]) -> Table:
    if path.is_dir():
        names = [file.name for file in pictures_in(path)]
        hashed("\n".join(names).encode(errors="surrogateescape"))
        return _whole(f"{path.resolve().name}, ", path, [{"id": name, "image": name} for name in names])
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise PrumergeError(f"{shown(path)} is no training data that can be read; these are {_KINDS}")
    return _whole(f"{path.name}, ", path.parent, read(path, hashed))


def _bytes(path: Path, hashed: Callable[[bytes], None]) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PrumergeError(f"{shown(path)} cannot be read ({first_line(error)})") from None
    hashed(content)
    return content


def _json(path: Path, hashed: Callable[[bytes], None]) -> list[Any]:
    try:
        value = json.loads(_bytes(path, hashed))
    except (ValueError, RecursionError) as error:
        lines = "; name it .jsonl if each line is a row" if str(error).startswith("Extra data") else ""
        raise PrumergeError(f"{shown(path)} is no JSON ({first_line(error)}){lines}") from None
    if isinstance(value, dict):  # {"data": [...]}, and what else stands beside it
        lists = [one for one in value.values() if isinstance(one, list)]
        value = lists[0] if len(lists) == 1 else None
    if not isinstance(value, list):
        raise PrumergeError(f"{shown(path)} holds no list of rows")
    return value


def _json_lines(path: Path, hashed: Callable[[bytes], None]) -> list[Any]:
    rows = []
    for number, line in enumerate(io.BytesIO(_bytes(path, hashed).removeprefix(b"\xef\xbb\xbf")), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise PrumergeError(
                    f"{shown(path)}: line {number} is no JSON ({first_line(error)})"
                ) from None
    return rows


def _parquet(path: Path, hashed: Callable[[bytes], None]) -> RawRows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingPackage("parquet files need pyarrow; install it with: pip install pyarrow") from None
    try:
        return _Arrow(pyarrow.parquet.read_table(pyarrow.BufferReader(_bytes(path, hashed))))
    except pyarrow.ArrowException as error:
        raise PrumergeError(f"{shown(path)} is no parquet file ({first_line(error)})") from None


_READERS = {".json": _json, ".jsonl": _json_lines, ".parquet": _parquet}


class _Arrow:
    """Rows of a pyarrow.Table, or of a `datasets.Dataset` in its arrow format: made when they are asked for,
    pictures as the bytes that are stored."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, place: int) -> Any:
        cut = getattr(self.table, "slice", None)
        return (cut(place, 1) if cut else self.table[place]).to_pylist()[0]


def _in_memory(data: Any, hashed: Callable[[bytes], None]) -> Table:
    if isinstance(data, Mapping) or not isinstance(data, RawRows):
        raise PrumergeError(
            f"training data are a file, a folder of pictures or a list of rows, not {type(data).__name__}"
        )
    # A dataset of Hugging Face's decodes a row's pictures when it is asked for, unless it gives it as Arrow.
    if hasattr(data, "with_format") and getattr(data, "format", {}).get("type") is None:
        data = _Arrow(data.with_format("arrow"))
    for place in range(len(data)):
        hashed(json.dumps(data[place], default=_described, skipkeys=True).encode())
    return _whole("", "", data)


def _described(value: Any) -> str:
    if isinstance(value, Image.Image):
        return f"{value.mode} {value.width} x {value.height}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return os.fsdecode(value) if isinstance(value, os.PathLike) else type(value).__name__


# LLaVA-NeXT's list of files


def _listed(path: Path, hashed: Callable[[bytes], None]) -> Iterator[Table]:
    """`datasets: [{json_path, sampling_strategy: all | first:1000 | end:20% | random:999}]`; relative paths
    are relative to the list."""
    import yaml

    try:
        value = yaml.safe_load(_bytes(path, lambda content: None))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PrumergeError(f"{shown(path)} is no YAML ({' '.join(str(error).split())})") from None
    entries = value.get("datasets") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PrumergeError(f"{shown(path)} has no list of `datasets`, each with a json_path")
    for number, entry in enumerate(entries, 1):
        place = f"{path.name}, dataset {number}"
        extra = entry.keys() - {"json_path", "sampling_strategy"}
        if extra or not isinstance(entry.get("json_path"), str):
            raise PrumergeError(
                f"{place} has {', '.join(map(str, entry)) or 'nothing'}; give it a json_path, and if not all "
                "rows are wanted a sampling_strategy"
            )
        file = existing(path.parent / entry["json_path"], f"file for {place}")
        if file.is_dir():
            raise PrumergeError(f"{place}: {shown(file)} is a folder, not a file of rows")
        strategy = str(entry.get("sampling_strategy", "all"))
        table = _file(file, hashed)
        chosen = _sampled(len(table.rows), strategy, place)
        if len(chosen) < len(table.rows):
            hashed(strategy.encode())
        yield replace(table, chosen=chosen)


def _sampled(available: int, strategy: str, place: str) -> Sequence[int]:
    if strategy == "all":
        return range(available)
    found = _STRATEGY.fullmatch(strategy)
    if not found:
        raise PrumergeError(
            f"{place}: there is no sampling_strategy {short(strategy)!r}; choose all, first:N, end:N or "
            "random:N, where N is a number of rows or a share of them such as 20%"
        )
    which, number, percent = found.groups()
    count = min(int(number) if number else math.ceil(float(percent) * available / 100), available)
    if which == "random":
        return sorted(random.Random(0).sample(range(available), count))  # the same ones in every run
    return range(count) if which == "first" else range(available - count, available)
