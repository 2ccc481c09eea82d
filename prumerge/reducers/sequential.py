from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Sequential(Selector):
    """The first visual tokens in raster order: the top rows of the picture.

    The weakest baseline of the PruMerge paper (Table 4).
    """

    paper = "https://arxiv.org/abs/2403.15388"
    decides = "once"

    keep: int | float = 1 / 16
    """Visual tokens to keep: a count or a share below 1 (1/16 is 36 of 576)."""

    def __call__(self, tokens: VisualTokens) -> Reduction:
        return self.selected(tokens, torch.arange(self.count(len(tokens)), device=tokens.features.device))
