from __future__ import annotations

from dataclasses import dataclass

from torch.nn.functional import normalize

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Resampler(Reducer):
    """A resampler without parameters: means of even cells are queries that attend to the whole picture.

    The baseline for learned connectors that read a picture by cross-attention (Q-Former, Perceiver
    resampler): the softmax of the cosine between a cell's mean feature and every token's, over temperature.
    """

    decides = "together"

    keep: int | float = 1 / 16
    """Queries: a count or a share below 1 (1/16 is 36 of 576)."""

    temperature: float = 0.1
    """The smaller, the more a query takes of the most similar tokens alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise PrumergeError(f"{self}: temperature must be above 0")

    def __call__(self, tokens: VisualTokens) -> Reduction:
        cell, count = ops.cells(tokens.grid, self.count(len(tokens)), None, tokens.features.device)
        features = normalize(tokens.features.float(), dim=-1)
        queries = normalize(ops.members(cell, count) @ features, dim=-1)
        weights = (queries @ features.T / self.temperature).softmax(dim=-1)
        return Reduction(ops.centres(cell, count, tokens.grid[2]), weights)
