from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.reducer import Adaptive
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Trim(Adaptive):
    """TRIM: the patches that match the question, as outliers, and one token for the mean of the rest.

    Without `keep` the outliers by the IQR rule among softmax(sharpness * relevance), in spatial order; the
    mean of the rest is one token more, the last (as in the official code,
    https://github.com/FreedomIntelligence/TRIM). Where nothing is an outlier, as for a question about nothing
    in the picture, the 1 of 18 that match best stay, as for PruMerge. The official relevance is the product
    of CLIP's two embeddings as it is, `relevance=prumerge.clip_relevance(..., product=True)` with
    sharpness=1; `clip_relevance(...)` alone gives cosines on a scale from 0 to 1, and where no relevance is
    given, it is the cosine with the language model's embeddings of the words.
    """

    paper = "https://arxiv.org/abs/2409.10994"
    needs = "text"

    sharpness: float = 50.0
    """Without keep: the scale of relevance in the softmax; 1 for products as they are (official code). On
    bell-shaped relevance from 0 to 1, 50 keeps the 21 % of tokens the paper reports."""

    iqr: float = 1.5
    """Without keep: an outlier lies this many interquartile ranges above the third quartile."""

    extra_token: bool = True
    """One more token, the mean of all that is not kept."""

    def scores(self, tokens: VisualTokens) -> Float[Tensor, "N"]:
        return self.relevance(tokens, instead="topk")

    def wanted(self, scores: Float[Tensor, "N"]) -> Int[Tensor, ""]:
        return ops.outlier_count((self.sharpness * scores).softmax(dim=0), self.iqr)

    def choose(self, tokens: VisualTokens, scores: Float[Tensor, "N"], count: int) -> Reduction:
        index, available = ops.top(scores, count).sort().values, len(tokens)
        if not self.extra_token or count == available:
            return Reduction(index)
        rest = ops.complement(index, available)
        mean = rest[None] / (available - count)
        place = scores.masked_fill(~rest, -torch.inf).argmax()  # where the best of the rest was
        return Reduction(torch.cat([index, place[None]]), torch.cat([ops.one_hot(index, available), mean]))
