from __future__ import annotations

from dataclasses import dataclass

from prumerge import ops
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Scope(FrameByFrame, Selector):
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
        chosen = ops.best_coverage(ops.cosines(tokens.features), saliency, count)
        return self.selected(tokens, chosen.sort().values)
