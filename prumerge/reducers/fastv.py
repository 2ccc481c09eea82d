from __future__ import annotations

from dataclasses import dataclass

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import LayerReducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class FastV(LayerReducer):
    """FastV: after the first layers of the language model, drop what its last prompt token does not look at.

    Ranked by the attention of layer K - 1 (mean over heads) from the last token of the prompt; layers K and
    later see the best of them, in spatial order. The official defaults: K = 2, half of the tokens.
    """

    paper = "https://arxiv.org/abs/2403.06764"

    keep: int | float = 0.5
    """Visual tokens from layer K on: a count or a share below 1."""

    layer: int = 2
    """K: the first layer that sees fewer of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 1:
            raise PrumergeError(f"{self}: layer must be at least 1, attention has to be read before it")

    def depths(self, layers: int) -> tuple[int, ...]:
        return (self.layer,)

    def __call__(self, tokens: VisualTokens) -> Reduction:
        return Reduction(ops.top(self.received(tokens), self.count(len(tokens))).sort().values)
