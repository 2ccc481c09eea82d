"""Which rows are trained on, and which are measured on instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prumerge.errors import PrumergeError
from prumerge.train.rows import Row, Rows


@dataclass(frozen=True)
class Part(Sequence[Row]):
    """Some rows by their places, or some questions of them; each is made when it is asked for."""

    rows: Rows
    places: Sequence[tuple[int, int | None]]
    """Of a row, and of a question in it; None: the row as it is."""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Part(self.rows, self.places[place])
        number, question = self.places[place]
        row = self.rows[number]
        return row if question is None else row.questions[question]


def divided(rows: Rows, held_out: float, *, questions: bool) -> tuple[Part, Part]:
    """Rows to train on and rows to measure on, these evenly from the whole; with `questions` taken apart into
    rows of one question each.

    `held_out` is a share of the rows below 1, or how many. Raises PrumergeError if none are left to train on.
    """
    count = round(held_out * len(rows)) if held_out < 1 else int(held_out)
    if not 0 <= count < len(rows):
        raise PrumergeError(
            f"{held_out:g} of {len(rows)} rows cannot be held out; some must be left to train on"
        )
    measured = {round((number + 0.5) * len(rows) / count - 0.5) for number in range(count)}
    parts: tuple[list[tuple[int, int | None]], ...] = ([], [])
    for place in range(len(rows)):
        asked = range(len(rows[place].questions)) if questions else [None]
        parts[place in measured].extend((place, question) for question in asked)
    return Part(rows, parts[0]), Part(rows, parts[1])
