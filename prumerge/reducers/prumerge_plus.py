from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.reducers._merging import AttentionMerging
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class PruMergePlus(AttentionMerging):
    """LLaVA-PruMerge+: PruMerge's outliers and spatially even samples, about a quarter of the tokens.

    Even samples are taken three times as densely as there are outliers (the official code's stride). That
    code keeps everything once more than a sixth of the tokens are outliers; here the stride is never below 2.
    `keep` is this project's own way of asking for a number, which that code has not: half of it is the top of
    the class attention, half are even samples of the rest, and the extra token comes on top.
    """

    def wanted(self, scores: Float[Tensor, "N"]) -> Int[Tensor, ""]:
        return self.bounded(self._line(scores).lt(2 * len(scores)).sum(), len(scores))

    def choose(self, tokens: VisualTokens, scores: Float[Tensor, "N"], count: int) -> Reduction:
        if self.keep is not None:
            return self.merged(tokens, scores, _half_and_half(scores, count))
        line = self._line(scores)
        index = line.argsort()[:count]
        if self.min_keep > 1 or self.max_keep is not None:  # a bound that was met shares out what it leaves
            own = line.lt(2 * len(scores)).sum()
            index = torch.where(own == count, index, _half_and_half(scores, count))
        return self.merged(tokens, scores, index)

    def _line(self, scores: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
        """Where each token stands in line: below N outliers, the best first; below 2 N even samples of the
        rest, in spatial order; behind them what is not kept."""
        available, outliers = len(scores), ops.outlier_count(scores, self.iqr)
        stride = (available // outliers // 3).clamp_min(2)
        rank, place = ops.ranks(scores), torch.arange(available, device=scores.device)
        sampled = (place % stride == 0) & (place < available - 1)
        behind = torch.where(sampled, available, 2 * available) + place
        return torch.where(rank < outliers, rank, behind)


def _half_and_half(scores: Float[Tensor, "N"], total: int) -> Int[Tensor, "total"]:
    """Half of them the highest scores, and half spread evenly over the rest."""
    important = ops.top(scores, total - total // 2)
    others = ops.places(ops.complement(important, len(scores)), len(scores) - len(important))
    return torch.cat([important, others[ops.evenly(total // 2, len(others), scores.device)]])
