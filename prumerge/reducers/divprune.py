from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge import ops
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class DivPrune(FrameByFrame, Selector):
    """DivPrune: the most diverse subset, by the greedy solution of the max-min diversity problem.

    The first token is the one whose nearest neighbour is farthest; then, again and again, the token farthest
    from all that are chosen. The distance is 1 - cosine between embeddings behind the projector, as in the
    official code (https://github.com/vbdi/divprune). It reads neither attention nor text.
    """

    paper = "https://arxiv.org/abs/2503.02175"

    keep: int | float = 0.098
    """Visual tokens to keep: a count or a share below 1 (the official code's 0.098 is 56 of 576)."""

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        distance = ops.cosines(tokens.embeddings()).neg_().add_(1)
        distance.diagonal().fill_(torch.inf)
        nearest = distance.amin(dim=0)
        chosen = ops.farthest_points(distance, nearest.argmax(dim=0, keepdim=True), count)
        return self.selected(tokens, chosen.sort().values)
