from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class VisPruner(FrameByFrame, Selector):
    """VisPruner: important tokens by class attention, and diverse ones among the rest.

    The rest, in order of attention, loses its duplicates in rounds: of every second token those `step` go
    that are most similar to one of the others (cosine of features), until the budget is met. As in the
    official code (https://github.com/Theia-4869/VisPruner) those that stay are in order of that similarity in
    the next round, before the others. Rounds amplify rounding: two similarities closer than 1e-7 may change
    places, and with them a fifth of what is kept; `precision=double` is what exact numbers would choose.
    """

    paper = "https://arxiv.org/abs/2412.01818"
    needs = "attention"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    important: float = 0.5
    """Share of the kept tokens that is chosen by attention alone."""

    step: int = 8
    """Tokens that a round removes at most."""

    precision: Literal["single", "double"] = "single"
    """Of the cosines that duplicates are found by: float32 as the official code has at most, or float64."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important <= 1:
            raise PrumergeError(f"{self}: important is a share from 0 to 1")
        if self.step < 1:
            raise PrumergeError(f"{self}: step must be at least 1")

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        attention, by_attention = tokens.scored_by("writer").attention(), int(count * self.important)
        ranked = ops.top(attention, len(tokens))
        important, rest = ranked[:by_attention], ranked[by_attention:]
        diverse = count - by_attention
        dtype = {"single": torch.float32, "double": torch.float64}[self.precision]
        similarity = ops.cosines(tokens.features, dtype=dtype)
        while diverse and len(rest) > diverse:
            candidates, others = rest[::2], rest[1::2]
            duplicate = similarity[others].amax(dim=0)[candidates]
            removed = min(self.step, len(rest) - diverse, len(candidates))
            stays = duplicate.argsort(descending=True, stable=True)[removed:]
            rest = torch.cat([candidates[stays], others])
        return self.selected(tokens, torch.cat([important, rest[:diverse]]).sort().values)
