from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.merging import AttentionMerging


@dataclass(frozen=True, kw_only=True)
class PruMergePlus(AttentionMerging):
    """LLaVA-PruMerge+: PruMerge's outliers and spatially even samples, about a quarter of the tokens.

    Even samples are taken three times as densely as there are outliers (section 3.4; the official code's
    stride). That code keeps everything once more than a sixth of the tokens are outliers; here the stride is
    never below 2. With `keep`, half of it is the top of the class attention and half even samples of the
    rest.
    """

    def choose(self, scores: Float[Tensor, "N"]) -> Int[Tensor, "M"]:
        available = len(scores)
        if self.keep is not None:
            return self._fixed(scores, self.count(available))
        count = ops.outlier_count(scores, self.iqr)
        important = ops.top(scores, count)
        stride = max(2, available // count // 3)
        samples = torch.arange(0, available - 1, stride, device=scores.device)
        samples = samples[ops.complement(important, available)[samples]]
        total = count + len(samples)
        if (bounded := self.bounded(total, available)) != total:
            return self._fixed(scores, bounded)
        return torch.cat([important, samples])

    def _fixed(self, scores: Float[Tensor, "N"], count: int) -> Int[Tensor, "count"]:
        samples = count // 2
        important = ops.top(scores, count - samples)
        others = ops.complement(important, len(scores)).nonzero().flatten()
        return torch.cat([important, others[ops.evenly(samples, len(others), scores.device)]])
