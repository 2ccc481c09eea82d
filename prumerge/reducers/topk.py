from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.reducer import Adaptive
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class TopK(Adaptive, Selector):
    """The tokens with the highest class attention, the rest dropped without merging.

    Without `keep`: the outliers, PruMerge's adaptive selection alone (the paper's "AITS only", Table 5).
    """

    paper = "https://arxiv.org/abs/2403.15388"
    needs = "attention"

    heads: Literal["joint", "split"] = "joint"
    """How attention is read: all heads as one (joint, PruMerge's code), or per head and averaged (split)."""

    order: Literal["score", "spatial"] = "spatial"
    """Order in which the language model reads the kept tokens."""

    iqr: float = 1.5
    """Without keep: an outlier lies this many interquartile ranges above the third quartile."""

    def scores(self, tokens: VisualTokens) -> Float[Tensor, "N"]:
        return tokens.attention(split_heads=self.heads == "split")

    def wanted(self, scores: Float[Tensor, "N"]) -> Int[Tensor, ""]:
        return ops.outlier_count(scores, self.iqr)

    def choose(self, tokens: VisualTokens, scores: Float[Tensor, "N"], count: int) -> Reduction:
        index = ops.top(scores, count)
        return self.selected(tokens, index if self.order == "score" else index.sort().values)
