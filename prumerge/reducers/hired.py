from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class HiRED(Selector):
    """HiRED: a budget divided among the tiles of a picture, and in each the highest class attention.

    The first tile (frame) is the whole picture, the others are its sub-images. The whole gets alpha of the
    budget; of the rest each sub-image gets as much as its area holds of the patches, 1 - alpha of all, that
    the class token attends to most in the whole. A single tile keeps its highest attention. The budget is
    divided by the first layer's attention, patches are chosen by that of the layer that wrote the features.
    The official code (https://github.com/hasanar1f/HiRED) rounds every part of the budget down and so keeps a
    few tokens less than asked for; here what rounding leaves over goes to the largest parts, and `keep` is
    met.
    """

    paper = "https://arxiv.org/abs/2408.10945"
    needs = "class token"
    decides = "together"

    keep: int | float = 0.2
    """Visual tokens to keep of all tiles together: a count or a share below 1."""

    alpha: float = 0.5
    """Share of the budget for the whole picture."""

    tiles: str | None = None
    """Rows x columns of the sub-images, such as 2x2, to divide by their areas (paper); none: by consecutive
    patches in raster order, as the official code does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise PrumergeError(f"{self}: alpha is a share from 0 to 1")
        if self.tiles is not None:
            ops.rows_by_columns(self.tiles)

    def __call__(self, tokens: VisualTokens) -> Reduction:
        self.need(tokens.class_key is not None, "a class token", instead="vispruner")
        (tiles, rows, columns), count = tokens.grid, self.count(len(tokens))
        attention = tokens.scored_by("writer").attention()
        size, parts = rows * columns, tiles - 1
        if not parts:
            return self.selected(tokens, ops.top(attention, count).sort().values)
        place = torch.arange(len(tokens), device=attention.device)
        area, areas = place[:size] * parts // size, parts
        if self.tiles is not None:
            area, areas = ops.cells((1, rows, columns), None, self.tiles, attention.device)
        if areas != parts:
            raise PrumergeError(f"{self}: {areas} tiles do not fit the {parts} sub-images of this picture")
        whole = max(min(int(count * self.alpha), size), count - parts * size)
        content = ops.top(tokens.scored_by("first").attention()[:size], int(size * (1 - self.alpha)))
        shares = ops.members(area[content], parts).sum(dim=1)
        budgets = torch.cat([area.new_full((1,), whole), ops.allot(count - whole, shares)])
        return self.selected(tokens, ops.best_of_each(attention, place // size, budgets, count))
