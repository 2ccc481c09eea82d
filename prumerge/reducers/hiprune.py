from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class HiPrune(FrameByFrame, Selector):
    """HiPrune: what a middle layer attends to with its neighbours, and what the last layer attends to.

    Of K tokens, round(alpha K / 5) are anchors, those with the highest attention in the middle ("object")
    layer of the vision tower; their four neighbours on the grid are buffers; the rest are registers, the
    highest attention in the layer that wrote the features among all others. As in the official code (MIT,
    https://github.com/Danielement321/HiPrune), from whose description this is written, neighbours are counted
    in raster order: beyond the end of a row comes the next row, above the first row the first patch, below
    the last row the last one. Its attention is the mean over heads and over all queries; here it is the class
    token's where there is one, and the mean over patches elsewhere. Where the family gives no attention of
    other layers (towers that the model itself runs) both are those of the layer that reads the features;
    where it does, the layers below the middle one run once more. In tiles and frames each gets its even
    share.
    """

    paper = "https://arxiv.org/abs/2508.00553"
    needs = "attention"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    alpha: float = 0.1
    """Share of the kept tokens for anchors and their neighbours."""

    layer: int | float = 0.375
    """The object layer: its number, counted from 1, or a share of the tower's layers (0.375 is 9 of 24, the
    paper's for CLIP; for Qwen2.5-VL it takes 16 of 32)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise PrumergeError(f"{self}: alpha is a share from 0 to 1")
        if not (self.layer >= 1 if isinstance(self.layer, int) else 0 < self.layer < 1):
            raise PrumergeError(
                f"{self}: layer is a whole number, counted from 1, or a share between 0 and 1"
            )

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        (_, rows, columns), last = tokens.grid, len(tokens) - 1
        order = tokens.scored_by("writer").attention()
        if anchored := round(self.alpha * count / 5):
            anchors = ops.top(tokens.scored_by(self.layer).attention(), anchored)
            steps = (-1, 1, -columns, columns) if rows > 1 else (-1, 1)
            buffers = torch.cat([anchors + step for step in steps]).clamp(0, last)
            # Attention is at most 1: first anchors, then buffers, then the rest by it.
            order = order.scatter(0, buffers, 2.0).scatter(0, anchors, 3.0)
        return self.selected(tokens, ops.top(order, count).sort().values)
