from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class HoloV(FrameByFrame, Selector):
    """HoloV: every part of the picture keeps tokens, more of them where class attention is higher.

    Crops are runs of consecutive patches; each gets a budget in proportion to its mean score and keeps its
    highest attention. The official code (https://github.com/obananas/HoloV) adds the variance of similarities
    to the score, but scales it to the crop's own mean attention, so that every mean grows by the same factor
    and no budget changes: it is left out here. What a crop is too small for goes to the highest attention
    elsewhere (there: zeros), and tokens stay in spatial order (there: best first in each crop). In tiles and
    frames each gets its even share of the budget and is divided into crops by itself.
    """

    paper = "https://arxiv.org/abs/2510.02912"
    needs = "attention"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    crops: int = 16
    """Parts of a picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crops < 1:
            raise PrumergeError(f"{self}: crops must be at least 1")

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        attention, crops = tokens.scored_by("writer").attention(), min(self.crops, len(tokens))
        sizes = torch.full((crops,), len(tokens) // crops, device=attention.device)
        sizes[: len(tokens) % crops] += 1
        crop = torch.arange(crops, device=attention.device).repeat_interleave(sizes, output_size=len(tokens))
        budgets = ops.allot(count, ops.members(crop, crops) @ attention / sizes)
        return self.selected(tokens, ops.best_of_each(attention, crop, budgets, count))
