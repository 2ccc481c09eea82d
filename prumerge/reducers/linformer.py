from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import LayerReducer
from prumerge.reducers._covering import covered
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Linformer(LayerReducer):
    """Linformer without training: all visual tokens stay, their keys and values become means of groups.

    From layer `layer` on attention reads K' = W K and V' = W V of a picture, keys behind rotary positions, W
    the same everywhere; each row counts in attention as the tokens in it. Queries and MLPs keep all tokens,
    so that attention and the KV cache become smaller and nothing else. W averages the cells of a grid (the
    paper's projection by mean pooling), or what each of those tokens stands for that cover the picture best.
    """

    paper = "https://arxiv.org/abs/2006.04768"

    prefix: ClassVar[bool] = True

    keep: int | float = 1 / 16
    """Rows of keys and values for each picture: a count or a share below 1 (1/16 is 36 of 576)."""

    by: Literal["pool", "medoids"] = "pool"
    """Groups: even cells of the picture (pool), or the tokens that each medoid stands for (medoids)."""

    layer: int = 1
    """The first layer with fewer keys and values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 1:
            raise PrumergeError(f"{self}: layer must be at least 1, the first cache counts the whole prompt")
        if self.positions != "original":
            raise PrumergeError(f"{self}: all tokens stay, and so do their positions; leave out positions")

    def depths(self, layers: int) -> tuple[int, ...]:
        return (self.layer,)

    def __call__(self, tokens: VisualTokens) -> Reduction:
        count = self.count(len(tokens))
        if self.by == "pool":
            group, count = ops.cells(tokens.grid, count, None, tokens.features.device)
            index = ops.centres(group, count, tokens.grid[2])
        else:
            index = ops.top(covered(tokens, count), count).sort().values
            group = ops.most_similar(tokens.keys, index, tokens.frame_sizes)
        belongs = ops.members(group, count)
        return Reduction(index, belongs / belongs.sum(1, keepdim=True), group)
