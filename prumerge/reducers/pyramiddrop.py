from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import LayerReducer, Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class PyramidDrop(LayerReducer):
    """PyramidDrop: drop a share of the visual tokens after each of several stages of the language model.

    Shallow layers need them all, deep ones few. At the end of a stage tokens are ranked by the attention
    (mean over heads) from the last token of the prompt, as the next layer computes it. The official defaults:
    stages end after a quarter, half and three quarters of the layers, and each halves. Official code:
    https://github.com/Cooperx521/PyramidDrop.
    """

    paper = "https://arxiv.org/abs/2410.17247"

    reads: ClassVar[int] = 0

    keep: int | float | None = None
    """Visual tokens after the last stage (a count or a share below 1), in place of ratio."""

    ratio: float = 0.5
    """Share of its tokens that each stage hands on."""

    layers: int | str | None = None
    """Layers before which a stage ends, such as 8-16-24; none: after a quarter, half and three quarters."""

    positions: Literal["original", "compact"] = "compact"
    """Position ids of what is left: as they were, or counted anew without gaps (the official code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise PrumergeError(f"{self}: ratio must be above 0 and at most 1")
        if self.keep is not None and self.ratio != 0.5:
            raise PrumergeError(f"{self}: give keep or ratio, not both")
        if self.layers is not None:
            ops.listed(self.layers)

    def depths(self, layers: int) -> tuple[int, ...]:
        if self.layers is not None:
            return ops.listed(self.layers)
        return tuple(sorted({max(1, layers * quarter // 4) for quarter in (1, 2, 3)}))

    def at(self, stage: int, stages: int, available: int) -> Reducer:
        """The same share at each stage, rounded down once, from what the picture came with."""
        share = self.ratio ** (stage + 1)
        if self.keep is not None:
            share = (self.count(available) / available) ** ((stage + 1) / stages)
        return replace(self, keep=max(1, math.floor(share * available + 1e-6)), ratio=0.5)

    def __call__(self, tokens: VisualTokens) -> Reduction:
        method = self if self.keep is not None else self.at(0, 1, len(tokens))
        return Reduction(ops.top(self.received(tokens), method.count(len(tokens))).sort().values)
