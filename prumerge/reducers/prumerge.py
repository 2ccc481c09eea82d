from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.reducers._merging import AttentionMerging
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class PruMerge(AttentionMerging):
    """LLaVA-PruMerge: keep the outliers of class attention; each absorbs its most similar neighbours.

    Adaptive token selection keeps the tokens whose class attention is an outlier by the IQR
    rule, more of them where the picture holds more; token supplement adds the k tokens with the
    most similar keys. With `keep`, the tokens with the highest attention; the extra token comes on top of
    `keep`, as in the official code. An image without outliers keeps the paper's mean share (1/18).
    """

    def wanted(self, scores: Float[Tensor, "N"]) -> Int[Tensor, ""]:
        return self.bounded(ops.outlier_count(scores, self.iqr), len(scores))

    def choose(self, tokens: VisualTokens, scores: Float[Tensor, "N"], count: int) -> Reduction:
        return self.merged(tokens, scores, ops.top(scores, count))
