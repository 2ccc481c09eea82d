from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import Adaptive
from prumerge.reducers._covering import covered, weight_of
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Medoids(Adaptive, Selector):
    """Medoids: the tokens that stand best for all others, each moved half-way to those it stands for.

    Chosen greedily to maximise sum_j a_j max_i cos(k_i, k_j), j over all tokens and i over the chosen ones:
    a is class attention, k are the keys that PruMerge compares, and cosines below 0 count as 0 (facility
    location; greedy reaches at least 1 - 1/e of the best). A chosen token then moves to the
    attention-weighted mean of those whose keys are most similar to its own. Without `keep` tokens are added
    until they cover `cover` of the picture. In tiles and frames tokens are compared within each, and a frame
    gets as much of the budget as its tokens add, at most three times its even share.
    """

    needs = "attention"

    cover: float = 0.9
    """Without keep: the share of the sum that the chosen tokens reach; all tokens together are 1."""

    most: float = 0.25
    """Without keep: at most this share of the tokens."""

    merge: float = 0.5
    """How far each kept token moves to the mean of the dropped ones whose keys are most similar to its own,
    at its own length: 0 (they are dropped) to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cover", "most"):
            if not 0 < getattr(self, name) <= 1:
                raise PrumergeError(f"{self}: {name} is a share above 0 and at most 1")

    def scores(self, tokens: VisualTokens) -> Float[Tensor, "N"]:
        """The share of the sum that each token added when it was chosen, as many as may be asked for; of
        others 0."""
        count = self._at_most(len(tokens)) if self.keep is None else self.count(len(tokens))
        return covered(tokens, count)

    def wanted(self, scores: Float[Tensor, "N"]) -> Int[Tensor, ""]:
        reached = scores.sort(descending=True).values.cumsum(dim=0)
        return (reached < self.cover).sum().add(1).clamp_max(self._at_most(len(scores)))

    def choose(self, tokens: VisualTokens, scores: Float[Tensor, "N"], count: int) -> Reduction:
        index = ops.top(scores, count).sort().values
        return self.selected(tokens, index, weight_of(tokens) if self.merge else None)

    def _at_most(self, available: int) -> int:
        return max(1, int(self.most * available))
