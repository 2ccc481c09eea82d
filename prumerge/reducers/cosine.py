from __future__ import annotations

from dataclasses import dataclass

from torch.nn.functional import normalize

from prumerge import ops
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Cosine(FrameByFrame, Selector):
    """Cosine redundancy: the tokens that are least like the average of all.

    A token's redundancy is the mean cosine of its embedding behind the projector with all of its picture,
    (1/N) sum_j cos(v_i, v_j); the lowest stay. As a product with the sum of all directions that costs N x C
    and no comparison of pairs: the cheapest choice by content, and the baseline that forks of serving engines
    (vLLM) use for pictures, from whose description it is written. It has no paper, reads neither attention
    nor text, and does not mind whether those that stay resemble each other.
    """

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        directions = normalize(tokens.embeddings(), dim=-1)
        redundancy = directions @ directions.mean(dim=0)
        return self.selected(tokens, ops.top(-redundancy, count).sort().values)
