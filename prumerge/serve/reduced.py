"""What is left of pictures, to be remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from prumerge.pipeline.decide import Decision, Left


@dataclass(frozen=True, eq=False)
class Took:
    """Milliseconds of a batch: the pictures of a request that were in the same one share it."""

    encode: float = 0
    """Of vision tower and projector."""
    reduce: float = 0
    """Of the method."""
    remembered: bool = False
    """Whether the vision tower had seen all of its pictures before."""

    @classmethod
    def together(cls, pictures: Sequence[Reduced]) -> Took:
        """Of all batches that some pictures were in."""
        batches = dict.fromkeys(one.took for one in pictures)
        return cls(sum(one.encode for one in batches), sum(one.reduce for one in batches))


NOTHING = Took()


@dataclass(frozen=True, eq=False)
class Reduced:
    """What is left of one picture, as the language model reads it."""

    left: Left
    embeddings: Float[Tensor, "T H"] = field(repr=False)
    plain: bool
    """Whether its placeholders are all that the processor writes for it."""
    took: Took = NOTHING
    """What it took to make this, for whoever waited for it."""


@dataclass(frozen=True, eq=False)
class Row:
    """The pictures that are decided together: one, or those of a question whose words decide as well."""

    steps: tuple[tuple[Reduced, ...], ...]
    """What each pipeline that was asked for leaves of them."""
    decisions: tuple[Decision, ...] = field(default=(), repr=False)
    """What was decided of each, for who wants to look at it; never remembered."""

    def remembered(self) -> Row:
        """The same for those who ask later."""
        return Row(tuple(tuple(replace(one, took=NOTHING) for one in step) for step in self.steps))

    @property
    def nbytes(self) -> int:
        """Of its embeddings, and what is known of them on the CPU."""
        held = [
            tensor for step in self.steps for one in step for tensor in (one.embeddings, *one.left.tensors())
        ]
        return sum(tensor.nbytes for tensor in held)
