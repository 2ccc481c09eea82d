from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.merging import AttentionMerging


@dataclass(frozen=True, kw_only=True)
class PruMerge(AttentionMerging):
    """LLaVA-PruMerge: keep the outliers of class attention; each absorbs its most similar neighbours.

    Adaptive token selection (section 3.2) keeps the tokens whose class attention is an outlier by the IQR
    rule, more of them where the picture holds more; token supplement (section 3.3) adds the k tokens with the
    most similar keys. With `keep`, the tokens with the highest attention; the extra token comes on top of
    `keep`, as in the official code. An image without outliers keeps the paper's mean share (1/18).
    """

    def choose(self, scores: Float[Tensor, "N"]) -> Int[Tensor, "M"]:
        if self.keep is not None:
            return ops.top(scores, self.count(len(scores)))
        return ops.top(scores, self.bounded(ops.outlier_count(scores, self.iqr), len(scores)))
