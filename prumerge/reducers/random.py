from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Random(Selector):
    """A random subset of the visual tokens, in spatial order.

    The choice depends on the seed and the number of tokens alone, so every image of one size keeps the same
    places: run several seeds before drawing conclusions.
    """

    decides = "once"

    keep: int | float = 1 / 16
    """Visual tokens to keep: a count or a share below 1 (1/16 is 36 of 576)."""

    seed: int = 0
    """Another seed, another subset."""

    def __call__(self, tokens: VisualTokens) -> Reduction:
        # Drawn on the CPU: the same subset on every device.
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(self.seed))
        index = order[: self.count(len(tokens))].sort().values
        return self.selected(tokens, index.to(tokens.features.device))
