"""One reader for training data in the forms that users have: conversations about pictures and clips."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, overload

from PIL import Image

from prumerge.errors import PrumergeError, short
from prumerge.loading.clips import FRAMES
from prumerge.train.files import Table, tables
from prumerge.train.forms import Message, read_row
from prumerge.train.media import Clip, Picture

BUILT_IN_QUESTIONS = (
    "Describe this picture in detail.",
    "What is in this picture?",
    "How many things are there, and of which kinds?",
    "What colours do the things in this picture have?",
    "Where are the things in this picture, relative to each other?",
    "Is there any text in this picture, and what does it say?",
    "What is happening in this picture?",
    "What stands out in this picture, and what is in the background?",
)
"""Asked about pictures that come without any question."""

_SHOWN = 3  # bad rows that an error names


@dataclass(frozen=True)
class Opened:
    """A row whose pictures are open: as many as its messages have image parts, in that order."""

    messages: tuple[Message, ...]
    pictures: list[Image.Image]
    """In RGB; a clip's frames one after the other."""


@dataclass(frozen=True)
class Row:
    """One conversation about its pictures and clips, none of them open."""

    where: str
    """What error sentences name: "data.json, row 17 (id 000033)". Rows count from 1."""
    messages: tuple[Message, ...]
    """{"role": "system", "user" or "assistant", "content": [{"type": "image"}, {"type": "text", "text": ...},
    ...]}, as Transformers' chat templates read them; a clip is one part of type image until it is open."""
    media: tuple[Picture | Clip, ...]
    """Where its pictures and clips are, in the order of their parts."""

    def open(self) -> Opened:
        """The row with its pictures; each clip has become as many image parts as it has frames.

        Raises PrumergeError that names the row for a picture that cannot be read, and MissingPackage for a
        video file without PyAV.
        """
        try:
            opened = [medium.open() for medium in self.media]
        except PrumergeError as error:
            raise type(error)(f"{self.where}: {error}") from error
        counts = iter([len(pictures) for pictures in opened])
        messages = [
            {
                **message,
                "content": [
                    dict(part)
                    for part in message["content"]
                    for _ in range(next(counts) if part["type"] == "image" else 1)
                ],
            }
            for message in self.messages
        ]
        return Opened(tuple(messages), [picture for pictures in opened for picture in pictures])

    @property
    def is_clip(self) -> bool:
        """Whether any of what it shows is a clip."""
        return any(isinstance(medium, Clip) for medium in self.media)

    @property
    def words(self) -> int:
        """Words of all its texts, as spaces part them."""
        return sum(len(text.split()) for message in self.messages for text in _texts(message))

    @property
    def questions(self) -> tuple[Row, ...]:
        """A row for each of its questions, without an answer, for training without labels.

        The system's message if there is one, then one turn of the user: all pictures and clips, and the
        question. A row without any text is asked the `BUILT_IN_QUESTIONS`.
        """
        system = tuple(message for message in self.messages if message["role"] == "system")
        asked = [
            " ".join(text.strip() for text in _texts(message))
            for message in self.messages
            if message["role"] == "user" and _texts(message)
        ]
        seen = [{"type": "image"} for _ in self.media]
        return tuple(
            Row(
                f"{self.where}, question {number}",
                (*system, {"role": "user", "content": [*seen, {"type": "text", "text": question}]}),
                self.media,
            )
            for number, question in enumerate(asked or BUILT_IN_QUESTIONS, 1)
        )


def _texts(message: Message) -> list[str]:
    return [part["text"] for part in message["content"] if part["type"] == "text"]


class Rows(Sequence[Row]):
    """The rows of a data set, each made when it is asked for; a slice of them is Rows with the same
    fingerprint."""

    fingerprint: str
    """16 hex digits that change with what the data files hold, not with their names or their pictures."""

    def __init__(
        self, files: Sequence[Table], order: Sequence[int], fingerprint: str, *, answers: bool, frames: int
    ) -> None:
        """Some rows (`order`, counted through all files) of tables that `read` has checked."""
        self.fingerprint = fingerprint
        self._files, self._order = files, order
        self._ends = list(accumulate(len(table.chosen) for table in files))
        self._answers, self._frames = answers, frames

    @classmethod
    def read(
        cls,
        data: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
        images: str | os.PathLike[str] | None = None,
        *,
        answers: bool = True,
        frames: int = FRAMES,
    ) -> Rows:
        """Rows of a .json, .jsonl or .parquet file, of a .yaml list of files as LLaVA-NeXT's, of a folder of
        pictures, or of a sequence of dicts (a dataset of Hugging Face's is one).

        A row has `conversations` (from, value), `messages` (role, content), `prompt` and `completion`, or
        `question` and `answer` (of several `answers` the most frequent), and its pictures under `image`,
        `images`, `video` or `videos`: paths relative to `images` (by default the folder of the data file),
        {bytes, path} or pictures of Pillow's. <image> and <video> in a text say where they belong; where no
        text of a row says so, pictures come before the first question, except in `conversations`. Every
        answer of a row is one to learn, those inside a `prompt` as well.

        `answers=False` is for training without labels: questions need no answers, and pictures no questions.
        A clip is shown as `frames` pictures at most.

        Everything is checked but what is in pictures. Raises PrumergeError that names the first bad rows and
        says what is wrong with each, or what is wrong with the file.
        """
        if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
            raise PrumergeError(f"a clip has at least one frame, not {frames}")
        if answers and isinstance(data, str | os.PathLike) and os.path.isdir(data):
            raise PrumergeError(
                "a folder of pictures has no answers to learn; train on it without labels, or give a file of "
                "rows"
            )
        files, fingerprint = tables(data, images)
        everything = range(sum(len(table.chosen) for table in files))
        rows = cls(files, everything, fingerprint, answers=answers, frames=frames)
        _raise_for(list(rows._problems()), len(rows))
        return rows

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Row | Rows:
        if isinstance(place, slice):
            return Rows(
                self._files,
                self._order[place],
                self.fingerprint,
                answers=self._answers,
                frames=self._frames,
            )
        table, raw, number = self._raw(self._order[place])
        messages, media = self._read(raw, table)
        return Row(_where(table, raw, number), messages, media)

    def _raw(self, place: int) -> tuple[Table, Any, int]:
        """The file that a row is in, the row as it is written, and its place in the file."""
        file = bisect_right(self._ends, place)
        table = self._files[file]
        number = table.chosen[place - self._ends[file]]  # below 0: counted from the end of the file's rows
        return table, table.rows[number], number

    def _read(self, raw: Any, table: Table) -> tuple[tuple[Message, ...], tuple[Picture | Clip, ...]]:
        return read_row(raw, table.folder, answers=self._answers, frames=self._frames)

    def _problems(self) -> Iterator[str]:
        """What is wrong, one sentence for each bad row."""
        for place in self._order:
            table, raw, number = self._raw(place)
            try:
                for medium in self._read(raw, table)[1]:
                    medium.check()
            except PrumergeError as error:
                yield f"{_where(table, raw, number)}: {error}"


def _where(table: Table, raw: Any, number: int) -> str:
    name = raw.get("id") if isinstance(raw, Mapping) else None
    return f"{table.name}row {number + 1}" + ("" if name is None else f" (id {short(str(name))})")


def _raise_for(problems: list[str], rows: int) -> None:
    if problems:
        more = f"; ... and {len(problems) - _SHOWN} more of {rows} rows" if len(problems) > _SHOWN else ""
        raise PrumergeError("; ".join(problems[:_SHOWN]) + more)
