from __future__ import annotations

from dataclasses import dataclass

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Spatial(Selector):
    """Tokens on an even grid over the picture, whatever it shows.

    The strong simple baseline of the PruMerge paper (Table 4: 5x8, 8x5, 6x6, ...).
    """

    paper = "https://arxiv.org/abs/2403.15388"
    decides = "once"

    keep: int | float = 1 / 16
    """Visual tokens to keep: a count or a share below 1 (1/16 is 36 of 576)."""

    grid: str | None = None
    """Rows x columns in each frame, such as 5x8, in place of keep."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid is not None:
            ops.rows_by_columns(self.grid)
            if self.keep != type(self).keep:
                raise PrumergeError(f"{self}: give keep or grid, not both")

    def __call__(self, tokens: VisualTokens) -> Reduction:
        count = None if self.grid else self.count(len(tokens))
        cell, count = ops.cells(tokens.grid, count, self.grid, tokens.features.device)
        return self.selected(tokens, ops.centres(cell, count, tokens.grid[2]))
