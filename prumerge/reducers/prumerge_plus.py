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

    Even samples are taken three times as densely as there are outliers (the official code's
    stride). That code keeps everything once more than a sixth of the tokens are outliers; here the stride is
    never below 2. With `keep`, half of it is the top of the class attention and half even samples of the
    rest.
    """

    def __call__(self, tokens: VisualTokens) -> Reduction:
        scores = self.scores(tokens)
        if self.keep is None:  # two lengths depend on the data: on the CPU that is one wait for the device
            index = self._outliers_and_samples(scores.cpu()).to(scores.device)
        else:
            index = self._half_and_half(scores, self.count(len(tokens)))
        return self.merged(tokens, scores, index)

    def _outliers_and_samples(self, scores: Float[Tensor, "N"]) -> Int[Tensor, "M"]:
        available, outliers = len(scores), ops.outlier_count(scores, self.iqr)
        important = ops.top(scores, outliers)
        samples = torch.arange(0, available - 1, step=max(2, available // outliers // 3))
        samples = samples[ops.complement(important, available)[samples]]
        total = self.bounded(outliers + len(samples), available)
        if total != outliers + len(samples):
            return self._half_and_half(scores, total)
        return torch.cat([important, samples])

    def _half_and_half(self, scores: Float[Tensor, "N"], total: int) -> Int[Tensor, "total"]:
        important = ops.top(scores, total - total // 2)
        others = ops.places(ops.complement(important, len(scores)), len(scores) - len(important))
        return torch.cat([important, others[ops.evenly(total // 2, len(others), scores.device)]])
