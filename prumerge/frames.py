"""Methods that look at one picture at a time: a video, or a large picture in tiles, goes frame by frame."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import accumulate, pairwise

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
        sizes = [len(frame) for frame in frames]
        parts = {
            number: self.choose(frame, share)
            for number, (frame, share) in enumerate(zip(frames, shares(count, sizes), strict=True))
            if share  # fewer tokens than frames leave some frames out
        }
        return joined(parts, sizes)

    @abstractmethod
    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        """Decide which `count` (at least 1) tokens of one frame are left."""


def shares(count: int, sizes: list[int]) -> list[int]:
    """A budget divided among frames of these sizes, evenly by their tokens."""
    ends = [count * end // sum(sizes) for end in accumulate(sizes, initial=0)]
    return [end - start for start, end in pairwise(ends)]


def joined(parts: dict[int, Reduction], sizes: list[int]) -> Reduction:
    """The reductions of some frames, by number, as one of the whole; `sizes` are those of all frames."""
    offsets = [0, *accumulate(sizes)]
    index = torch.cat([part.index + offsets[number] for number, part in parts.items()])
    if all(part.weights is None for part in parts.values()):
        return Reduction(index)
    columns = offsets[-1]
    if any(part.weights is not None and part.weights.shape[1] > sizes[n] for n, part in parts.items()):
        columns += len(sizes)  # one for each frame's class token
    weights = torch.zeros(len(index), columns, device=index.device)
    row = 0
    for number, part in parts.items():
        size, rows = sizes[number], slice(row, row + len(part))
        block = ops.one_hot(part.index, size) if part.weights is None else part.weights
        weights[rows, offsets[number] : offsets[number + 1]] = block[:, :size]
        if block.shape[1] > size:
            weights[rows, offsets[-1] + number] = block[:, size]
        row += len(part)
    return Reduction(index, weights)
