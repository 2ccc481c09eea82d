"""What a teacher says of an answer, token by token, and how far a student is from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge.train.rows import Row

_LEAST = 1e-6  # probability; less is rounding


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
    """The Kullback-Leibler divergence of a student's next tokens from a teacher's, summed over T places.

    Tokens that are not among the teacher's likeliest K count as one: exactly 0 where both are the same, and
    never above the divergence over the whole vocabulary.
    """
    ours = logits.float().log_softmax(-1).gather(-1, ids)
    rest, our_rest = (1 - each.exp().sum(-1).clamp(max=1 - _LEAST) for each in (taught, ours))
    likeliest = (taught.exp() * (taught - ours)).sum()
    return likeliest + (rest * (rest.log() - our_rest.log())).sum()
