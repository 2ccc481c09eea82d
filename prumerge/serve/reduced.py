"""What is left of pictures, to be remembered."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from prumerge.pipeline.decide import Left


@dataclass(frozen=True, eq=False)
class Reduced:
    """What is left of one picture, as the language model reads it."""

    left: Left
    embeddings: Float[Tensor, "T H"] = field(repr=False)
    plain: bool
    """Whether its placeholders are all that the processor writes for it."""


@dataclass(frozen=True, eq=False)
class Row:
    """The pictures that are decided together: one, or those of a question whose words decide as well."""

    steps: tuple[tuple[Reduced, ...], ...]
    """What each pipeline that was asked for leaves of them."""

    @property
    def nbytes(self) -> int:
        """Of its embeddings, and what is known of them on the CPU."""
        held = [
            tensor
            for step in self.steps
            for one in step
            for tensor in (one.embeddings, one.left.kept, one.left.standing, one.left.patches_each)
        ]
        return sum(tensor.nbytes for tensor in held)
