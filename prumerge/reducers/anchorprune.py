from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class AnchorPrune(FrameByFrame, Selector):
    """AnchorPrune: what matches the question, untouched, and around it what is important and new.

    Tokens are ranked by relevance. The first `least` are anchors; then come more, in order, until `patience`
    of them were new, that is farther than `novelty` (1 - cosine) from each of the first, or until half the
    budget is used. The rest is chosen greedily: the token with the largest product of class attention and
    distance to the nearest chosen one (at most 1) comes next. Attention is that of the layer that wrote the
    features, distances are of the features.

    A relevance that is given (`relevance=prumerge.clip_relevance(...)`, as the official code has for LLaVA)
    ranks as it is; without, it is the highest cosine of a patch's embedding with any word's (its way for
    Qwen-VL). That code measures how new an anchor is where it measures relevance, between CLIP's projections
    or behind the merger; here all distances are of the features. Written from a description of the code
    (Apache-2.0, https://github.com/MULTI-cau/AnchorPrune). Each tile or frame has its even share.
    """

    paper = "https://arxiv.org/abs/2607.07033"
    needs = "text, attention"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    least: int | None = None
    """Anchors at least; none: 5 of 32 (10 of 64, 20 of 128), as in the paper."""

    most: float = 0.5
    """The share of the budget that anchors have at most."""

    novelty: float = 0.2
    """The distance, 1 - cosine, beyond which a token is new."""

    patience: int = 3
    """So many new tokens end the anchors; the last of them is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.most <= 1:
            raise PrumergeError(f"{self}: most is a share from 0 to 1")
        if self.patience < 1 or (self.least is not None and self.least < 1):
            raise PrumergeError(f"{self}: patience and least must be at least 1")

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        ranked = ops.top(self._matches(tokens), len(tokens))
        distance = ops.cosines(tokens.features).neg_().add_(1).clamp_max_(1)
        least = min(count, max(1, round(count * 5 / 32)) if self.least is None else self.least)
        most = max(least, int(self.most * count))
        later = ranked[least:most]
        new = distance[ranked[:least]].amin(dim=0)[later] > self.novelty
        anchored = new.cumsum(dim=0) - new.long() < self.patience
        first = torch.cat([torch.ones_like(ranked[:least], dtype=torch.bool), anchored])
        anchors = torch.zeros_like(ranked, dtype=torch.bool).scatter(0, ranked[:most], first)
        attention = tokens.scored_by("writer").attention().detach()
        index = ops.important_and_far(distance, attention, anchors, count, count - least)
        return self.selected(tokens, index)

    def _matches(self, tokens: VisualTokens) -> Float[Tensor, "N"]:
        if tokens.relevance is not None:
            return tokens.relevance.float()
        words = self.text(tokens, instead="divprune")
        cosines = normalize(tokens.embeddings(), dim=-1) @ normalize(words, dim=-1).T
        return cosines.masked_fill(~words.any(dim=1), -torch.inf).amax(dim=1)
