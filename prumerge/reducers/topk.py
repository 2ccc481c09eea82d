from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prumerge import ops
from prumerge.reducer import Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class TopK(Reducer):
    """The tokens with the highest class attention, the rest dropped without merging.

    Without `keep`: the outliers, PruMerge's adaptive selection alone (the paper's "AITS only", Table 5).
    """

    paper = "https://arxiv.org/abs/2403.15388"
    needs = "attention"
    adaptive = True

    heads: Literal["joint", "split"] = "joint"
    """How attention is read: all heads as one (joint, PruMerge's code), or per head and averaged (split)."""

    order: Literal["score", "spatial"] = "spatial"
    """Order in which the language model reads the kept tokens."""

    iqr: float = 1.5
    """Without keep: an outlier lies this many interquartile ranges above the third quartile."""

    def __call__(self, tokens: VisualTokens) -> Reduction:
        scores = tokens.attention(split_heads=self.heads == "split")
        count = ops.outlier_count(scores, self.iqr) if self.keep is None else self.count(len(tokens))
        index = ops.top(scores, count)
        return Reduction(index if self.order == "score" else index.sort().values)
