"""What methods share that choose tokens: the rest may be merged into them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Selector(Reducer):
    """A method that chooses tokens, and moves each towards those that it stands for if it is asked to."""

    merge: float = 0.0
    """How far each kept token moves to the mean of the dropped ones whose keys are most similar to its own,
    at its own length: 0 (they are dropped) to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.merge <= 1:
            raise PrumergeError(f"{self}: merge is a share from 0 to 1")
        if self.merge and self.decides == "once":  # what is merged depends on the picture
            object.__setattr__(self, "decides", "together")

    def selected(
        self, tokens: VisualTokens, index: Int[Tensor, "M"], weight: Float[Tensor, "N"] | None = None
    ) -> Reduction:
        """The tokens in `index`, and of the others what `merge` says; `weight` is how much each of those
        counts (None: all the same)."""
        if not self.merge or len(index) == len(tokens):
            return Reduction(index)
        own = ops.most_similar(tokens.keys, index, tokens.frame_sizes)
        weight = torch.ones(len(tokens), device=index.device) if weight is None else weight
        return Reduction(index, ops.merged_by_similarity(tokens.features, index, own, self.merge, weight))
