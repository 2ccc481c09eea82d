from __future__ import annotations

from dataclasses import dataclass

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Pool(Reducer):
    """Average pooling: the picture is divided into even cells, and each becomes the mean of its tokens."""

    decides = "once"

    keep: int | float = 1 / 16
    """Cells: a count or a share below 1 (1/16 is 36 of 576, means of 4 x 4 patches)."""

    grid: str | None = None
    """Rows x columns of cells in each frame, such as 6x6, in place of keep."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid is not None:
            ops.rows_by_columns(self.grid)
            if self.keep != type(self).keep:
                raise PrumergeError(f"{self}: give keep or grid, not both")

    def __call__(self, tokens: VisualTokens) -> Reduction:
        count = None if self.grid else self.count(len(tokens))
        cell, count = ops.cells(tokens.grid, count, self.grid, tokens.features.device)
        belongs = ops.members(cell, count)
        means = belongs / belongs.sum(1, keepdim=True)
        return Reduction(ops.centres(cell, count, tokens.grid[2]), means, cell)
