from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class CDPruner(FrameByFrame, Selector):
    """CDPruner: tokens that are diverse given the question, by a determinantal point process.

    The kernel is the cosine of two tokens' embeddings behind the projector, weighted by how well both match
    the text; greedy maximum-a-posteriori inference adds the token with the largest gain in log-determinant.
    The paper's relevance is that of CLIP's two towers, `relevance=prumerge.clip_relevance(...)`; where none
    is given, the cosine with the language model's embeddings of the words. Official code:
    https://github.com/Theia-4869/CDPruner.
    """

    paper = "https://arxiv.org/abs/2506.10967"
    needs = "text"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    theta: float | None = None
    """Weight of relevance against diversity, 0 to below 1: r enters as exp(r theta / (2 - 2 theta));
    none: as r itself (official code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.theta is not None and not 0 <= self.theta < 1:
            raise PrumergeError(f"{self}: theta must be at least 0 and below 1")

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        tokens = tokens.embedded()
        relevance = self.relevance(tokens, instead="divprune")
        if self.theta is not None:
            relevance = torch.exp(self.theta / (2 - 2 * self.theta) * relevance)
        kernel = ops.cosines(tokens.features).mul_(relevance[:, None]).mul_(relevance)
        return self.selected(tokens, ops.largest_determinant(kernel, count).sort().values)
