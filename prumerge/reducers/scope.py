from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prumerge import ops
from prumerge.reducer import FrameByFrame
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Scope(FrameByFrame):
    """SCOPE: the tokens that cover the most of the picture, weighted by class attention.

    A token covers each other one as far as their features' cosine goes. Greedily, the token that adds most to
    the coverage, times its attention to the power alpha, comes next. Official code:
    https://github.com/kinredon/SCOPE.
    """

    paper = "https://arxiv.org/abs/2510.24214"
    needs = "attention"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    alpha: float = 1.0
    """How much saliency counts: the exponent of attention; 0 is coverage alone."""

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        saliency = tokens.scored_by("writer").attention().detach() ** self.alpha
        similarity = ops.cosines(tokens.features)
        covered, bar = torch.zeros_like(saliency), torch.zeros_like(saliency)
        more = torch.empty_like(similarity)
        chosen: list[Tensor] = []
        for _ in range(count):
            gain = torch.sub(similarity, covered, out=more).relu_().sum(dim=1) * saliency + bar
            best = gain.argmax(dim=0, keepdim=True)
            chosen.append(best)
            bar.index_fill_(0, best, -torch.inf)
            covered = torch.maximum(covered, similarity.index_select(0, best)[0])
        return Reduction(torch.cat(chosen).sort().values)
