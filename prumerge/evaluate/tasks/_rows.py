"""Rows of the files that benchmarks are published as; a picture stays in its file until it is shown."""

from __future__ import annotations

import ast
import base64
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.evaluate.tasks._task import Shown
from prumerge.loading.clips import open_clip
from prumerge.loading.images import decoding, frame, open_image
from prumerge.loading.paths import existing, first_line, shown

_NOTHING = ("", "nan", "none")  # of an optional field, as LLaVA reads it
_REFERENCE = 64  # characters: a shorter `image` of a TSV file is the index of the row that holds the picture


@dataclass(frozen=True)
class File:
    """A picture or, of more than one frame, a clip on disk."""

    path: Path
    frames: int = 1

    def __call__(self) -> list[Image.Image]:
        return [open_image(self.path)] if self.frames == 1 else open_clip(self.path, self.frames)


@dataclass(frozen=True)
class Row:
    """One row of a file, and the picture that it holds."""

    where: str
    """What error sentences name: "POPE.tsv, row 3". Rows count from 1."""
    values: Mapping[str, Any] = field(repr=False)
    show: Shown | None = None

    def text(self, *names: str) -> str:
        """The first of these fields that is there. Raises PrumergeError if none is."""
        value = next((self.values[name] for name in names if self.values.get(name) is not None), None)
        if not isinstance(value, str | int):
            raise PrumergeError(f"{self.where} has no {' or '.join(names)}; get a whole copy of the file")
        return str(value)

    def optional(self, name: str) -> str:
        """A field that may be missing; then it is empty."""
        value = self.values.get(name)
        text = value if isinstance(value, str) else ""
        return "" if text.lower() in _NOTHING else text

    def several(self, *names: str) -> tuple[str, ...]:
        """A list of texts, or of {"answer": text}, or such a list written out, or a single text."""
        value = next((self.values[name] for name in names if self.values.get(name) is not None), None)
        if isinstance(value, str) and value.startswith("["):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                value = [value]  # a text that only begins like a list
        texts = [one.get("answer") if isinstance(one, Mapping) else one for one in _listed(value)]
        if not texts or not all(isinstance(text, str | int | float) for text in texts):
            raise PrumergeError(f"{self.where} has no {' or '.join(names)}; get a whole copy of the file")
        return tuple(map(str, texts))

    def picture(self) -> Shown:
        """What it shows. Raises PrumergeError if it holds no picture."""
        if self.show is None:
            raise PrumergeError(f"{self.where} holds no picture; get a whole copy of the file")
        return self.show


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


# JSON


def read_json(path: Path) -> Any:
    """What a .json file holds. Raises PrumergeError if that is no JSON, or there is no such file."""
    content = existing(path, "file").read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PrumergeError(f"{shown(path)} is no JSON ({first_line(error)}); get a whole copy") from None


def rows_of(value: Any, path: Path) -> list[Row]:
    """The rows of a list of dicts that stood in `path`."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise PrumergeError(f"{shown(path)} holds no list of rows; get a whole copy")
    return [Row(f"{path.name}, row {number}", one) for number, one in enumerate(value, 1)]


def json_lines(path: Path) -> list[Row]:
    """The rows of a file of JSON lines. Raises PrumergeError naming the first line that is none."""
    values = []
    for number, line in enumerate(existing(path, "file").read_bytes().splitlines(), 1):
        try:
            if line.strip():
                values.append(json.loads(line))
        except ValueError as error:
            raise PrumergeError(
                f"{shown(path)}: line {number} is no JSON ({first_line(error)}); get a whole copy"
            ) from None
    return rows_of(values, path)


# parquet, as datasets of Hugging Face's are stored


def parquet(files: Sequence[Path]) -> list[Row]:
    """The rows of all parts of a table, without what its pictures hold.

    Raises PrumergeError where parts are missing or damaged, MissingPackage without pyarrow.
    """
    _whole(files)
    return [row for path in files for row in _table(path)]


def _whole(files: Sequence[Path]) -> None:
    """Raise PrumergeError unless all parts of NAME-00000-of-00003.parquet are there."""
    parts = [re.search(r"-(\d+)-of-(\d+)$", path.stem) for path in files]
    wanted = max((int(part[2]) for part in parts if part), default=0)
    there = {int(part[1]) for part in parts if part}
    if missing := [number for number in range(wanted) if number not in there]:
        name = re.sub(r"-\d+-of-", f"-{missing[0]:05}-of-", files[0].name)
        raise PrumergeError(
            f"{shown(files[0].parent)} has {len(there)} of {wanted} parts of a table and lacks {name}; "
            "get the others"
        )


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingPackage("parquet files need pyarrow; install it with: pip install pyarrow") from None
    return pyarrow


def _table(path: Path) -> Iterator[Row]:
    arrow = _arrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            pictures = [one.name for one in schema if _is_picture(one.type)]
            columns = [name for name in schema.names if name not in pictures]
            groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            values = [row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist()]
    except (OSError, arrow.ArrowException) as error:
        raise PrumergeError(f"{shown(path)} is no whole parquet file ({first_line(error)})") from None
    places = [(group, place) for group, count in enumerate(groups) for place in range(count)]
    for number, (row, (group, place)) in enumerate(zip(values, places, strict=True), 1):
        where = f"{path.name}, row {number}"
        yield Row(where, row, _InTable(path, pictures[0], group, place, where) if pictures else None)


def _is_picture(kind: Any) -> bool:
    """Whether a column is one of {bytes, path}."""
    names = [kind.field(place).name for place in range(kind.num_fields)]
    return "bytes" in names and "path" in names


@dataclass(frozen=True)
class _InTable:
    """A picture in a row of a table."""

    path: Path
    column: str
    group: int
    place: int
    where: str

    def __call__(self) -> list[Image.Image]:
        stored = _column(self.path, self.group, self.column)[self.place].as_py() or {}
        if not stored.get("bytes"):
            raise PrumergeError(f"{self.where} holds no picture; get a whole copy of the file")
        return [_decoded(stored["bytes"], self.where)]


@lru_cache(maxsize=2)  # neighbours are shown one after the other
def _column(path: Path, group: int, column: str) -> Any:
    """The pictures of one row group."""
    with _arrow().parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(0)


# TSV, as VLMEvalKit and MMBench publish


def tsv(files: Sequence[Path]) -> list[Row]:
    """The rows of a file of fields between tabs, of which `image` is a picture in base64, or the `index` of
    the row that holds it. Raises PrumergeError if it is no such file, or is cut off."""
    path = files[0]
    csv.field_size_limit(2**31 - 1)  # pictures are longer than csv expects
    rows: list[tuple[str, dict[str, str], int, str]] = []
    with existing(path, "file").open("rb") as file:
        table = _Table(file)
        header = table.fields() or []
        if "image" not in header or "question" not in header:
            raise PrumergeError(f"{shown(path)} has no columns question and image between tabs")
        while True:
            start, where = table.position, f"{path.name}, row {len(rows) + 1}"
            fields = table.fields()
            if fields is None:
                break
            if len(fields) != len(header):
                raise PrumergeError(
                    f"{where} has {len(fields)} fields and not {len(header)}; get a whole copy of the file"
                )
            values = dict(zip(header, fields, strict=True))
            image = values.pop("image")
            rows.append((where, values, start, image if len(image) <= _REFERENCE else ""))
    starts = {values.get("index"): start for _, values, start, reference in rows if not reference}
    column = header.index("image")
    found = []
    for where, values, start, reference in rows:
        if reference and reference not in starts:
            raise PrumergeError(f"{where} shows the picture of row {reference!r}, which is not in the file")
        found.append(Row(where, values, _InLine(path, starts.get(reference, start), column, where)))
    return found


class _Table:
    """Fields between tabs, and where in the file the next row starts."""

    def __init__(self, file: BinaryIO) -> None:
        self.position = file.tell()
        self._rows = csv.reader(self._lines(file), delimiter="\t")

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        for line in file:
            self.position += len(line)
            yield line.decode(errors="replace")

    def fields(self) -> list[str] | None:
        """Those of the next row; None at the end."""
        return next((row for row in self._rows if row), None)


@dataclass(frozen=True)
class _InLine:
    """A picture in base64 in the row that starts at a byte of a TSV file."""

    path: Path
    start: int
    column: int
    where: str

    def __call__(self) -> list[Image.Image]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            text = (_Table(file).fields() or [])[self.column]
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError:
            raise PrumergeError(f"the picture of {self.where} is no base64; get a whole copy") from None
        return [_decoded(data, self.where)]


def _decoded(data: bytes, where: str) -> Image.Image:
    name = f"the picture of {where}"
    with decoding(name):
        file = Image.open(io.BytesIO(data))
    with file:
        return frame(file, name)
