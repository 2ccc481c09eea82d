"""Methods that look at one picture at a time: a video, or a large picture in tiles, goes frame by frame."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch

from prumerge import ops
from prumerge.reducer import Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class FrameByFrame(Reducer):
    """Every frame gets its even share of the budget.

    So that memory grows with the square of a frame's tokens and not of the video's.
    """

    def __call__(self, tokens: VisualTokens) -> Reduction:
        frames, count = tokens.frames(), self.count(len(tokens))
        if len(frames) == 1:
            return self.choose(tokens, count)
        parts = {
            number: self.choose(frame, share)
            for number, (frame, share) in enumerate(zip(frames, shares(count, len(frames)), strict=True))
            if share  # fewer tokens than frames leave some frames out
        }
        return joined(parts, tokens)

    @abstractmethod
    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        """Decide which `count` (at least 1) tokens of one frame are left."""


def shares(count: int, frames: int) -> list[int]:
    """A budget divided evenly among frames."""
    ends = [count * number // frames for number in range(frames + 1)]
    return [end - start for start, end in pairwise(ends)]


def joined(parts: dict[int, Reduction], tokens: VisualTokens) -> Reduction:
    """The reductions of frames, by their numbers, as one of the whole."""
    frames, size = tokens.grid[0], len(tokens) // tokens.grid[0]
    index = torch.cat([part.index + number * size for number, part in parts.items()])
    if all(part.weights is None for part in parts.values()):
        return Reduction(index)
    columns = len(tokens)
    if any(part.weights is not None and part.weights.shape[1] > size for part in parts.values()):
        columns += frames  # one for each frame's class token
    weights = tokens.features.new_zeros(len(index), columns, dtype=torch.float32)
    row = 0
    for number, part in parts.items():
        block = ops.one_hot(part.index, size) if part.weights is None else part.weights
        weights[row : row + len(part), number * size : (number + 1) * size] = block[:, :size]
        if block.shape[1] > size:
            weights[row : row + len(part), len(tokens) + number] = block[:, size]
        row += len(part)
    return Reduction(index, weights)
