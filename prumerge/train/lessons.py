"""What a teacher says of an answer, token by token, and how far a student is from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge.evaluate.divergence import divergences
from prumerge.train.rows import Row


@dataclass(frozen=True)
class Lesson:
    """The likeliest next tokens at the T places of a row's answers, and their log-probabilities."""

    ids: Int[Tensor, "T K"]
    log_probabilities: Float[Tensor, "T K"]


@dataclass(frozen=True)
class Example:
    """A row, and what the teacher says at its answers."""

    row: Row
    lesson: Lesson | None = None


def together(lessons: Sequence[Lesson]) -> dict[str, Tensor]:
    """The lessons of a batch, one row after the other, as `divergence` takes them."""
    return {
        "taught_ids": torch.cat([lesson.ids for lesson in lessons]),
        "taught": torch.cat([lesson.log_probabilities for lesson in lessons]),
    }


def divergence(
    logits: Float[Tensor, "T V"], ids: Int[Tensor, "T K"], taught: Float[Tensor, "T K"]
) -> Float[Tensor, ""]:
    """Of a student's next tokens from a teacher's, summed over T places; see `divergences`."""
    return divergences(logits, ids, taught).sum()
