"""What PruMerge and PruMerge+ share: class attention chooses tokens, and the chosen absorb their
neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import Adaptive
from prumerge.tokens import Reduction, VisualTokens

_VARIANTS: dict[str, dict[str, str | bool]] = {
    "code": {"heads": "joint", "order": "score", "candidates": "others", "merge": "sum", "extra_token": True},
    "paper": {
        "heads": "split",
        "order": "spatial",
        "candidates": "pruned",
        "merge": "average",
        "extra_token": False,
    },
}


@dataclass(frozen=True, kw_only=True)
class AttentionMerging(Adaptive):
    """Select by class attention, then let every selected token absorb its most similar neighbours.

    The options are the places where the text of LLaVA-PruMerge (https://arxiv.org/abs/2403.15388) and its
    official code differ, or leave a choice. An option left at none follows `variant`.
    """

    paper = "https://arxiv.org/abs/2403.15388"
    needs = "attention"

    variant: Literal["code", "paper"] = "code"
    """Whose arithmetic: the official code's, which made the published numbers, or the text's (paper)."""
    iqr: float = 1.5
    """Without keep: an outlier lies this many interquartile ranges above the third quartile."""
    min_keep: int = 1
    """Without keep: at least so many tokens."""
    max_keep: int | None = None
    """Without keep: at most so many tokens."""
    k: int | Literal["auto"] = 32
    """Neighbours each kept token absorbs; auto: as many as there are pruned tokens for each kept one."""
    heads: Literal["joint", "split"] | None = None
    """How attention is read: all heads as one (joint, code), or per head and averaged (split, paper)."""
    order: Literal["score", "spatial"] | None = None
    """In what order the tokens are read: best first (score, code), or in raster order (spatial, paper)."""
    candidates: Literal["others", "pruned"] | None = None
    """Who may be absorbed: every other token (others, code), or pruned ones only (pruned, paper)."""
    merge: Literal["sum", "average"] | None = None
    """A token plus its attention-weighted neighbours (sum, code), or the weighted mean (average, paper)."""
    extra_token: bool | None = None
    """One more token, the attention-weighted sum of all that is not kept: on (code), off (paper)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iqr < 0:
            raise PrumergeError(f"{self}: iqr must not be negative")
        if self.min_keep < 1 or (self.max_keep is not None and self.max_keep < self.min_keep):
            raise PrumergeError(f"{self}: min_keep must be at least 1, and max_keep not below it")
        if self.keep is not None and (self.min_keep > 1 or self.max_keep is not None):
            raise PrumergeError(
                f"{self}: min_keep and max_keep bound the adaptive choice; with keep leave them out"
            )
        if self.k != "auto" and self.k < 0:
            raise PrumergeError(f"{self}: k must be auto or at least 0")

    def scores(self, tokens: VisualTokens) -> Float[Tensor, "N"]:
        """Class attention, as `heads` has it."""
        return tokens.attention(split_heads=self.settings["heads"] == "split")

    def merged(self, tokens: VisualTokens, scores: Float[Tensor, "N"], index: Int[Tensor, "M"]) -> Reduction:
        """Token supplement: every token in `index` absorbs its most similar neighbours."""
        if self.settings["order"] == "spatial":
            index = index.sort().values
        available = len(scores)
        pruned = ops.complement(index, available)
        k = math.ceil((available - len(index)) / len(index)) if self.k == "auto" else self.k
        pruned_only = self.settings["candidates"] == "pruned"
        neighbours = ops.nearest(tokens.keys, index, k, pruned_only=pruned_only)
        extra = self.settings["extra_token"] and len(index) < available
        average = self.settings["merge"] == "average"
        weights = ops.absorb(index, neighbours, scores, average=average, rest=pruned if extra else None)
        if extra:  # it stands where the strongest token of the rest was
            index = torch.cat([index, (scores * pruned).argmax()[None]])
        return Reduction(index, weights)

    @cached_property
    def settings(self) -> dict[str, str | bool]:
        """What each option is: as given, or else as `variant` has it."""
        given = {option: getattr(self, option) for option in _VARIANTS[self.variant]}
        return _VARIANTS[self.variant] | {option: way for option, way in given.items() if way is not None}

    def bounded(self, count: Int[Tensor, ""], available: int) -> Int[Tensor, ""]:
        """An adaptive count within min_keep and max_keep, and what there is."""
        return count.clamp_min(self.min_keep).clamp_max(min(self.max_keep or available, available))
