"""What a method decided for one image: which tokens are left, and what went into each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from prumerge import ops

if TYPE_CHECKING:
    from prumerge.tokens import VisualTokens


@dataclass(frozen=True)
class Reduction:
    """What a method decided for one image: reduced = weights @ features, a row for each of the M tokens left.

    Pruning is `weights=None`: each row takes the token at `index` as it is.
    """

    index: Int[Tensor, "M"]
    """The place (0 to N-1) that each token stands for: its position, and where pictures draw it."""

    weights: Float[Tensor, "M columns"] | None = None
    """N columns, one for each patch; of methods that keep the class token one more at the end, for it (in a
    video one for each frame)."""

    assignment: Int[Tensor, "N"] | None = None
    """For each patch the row of the token that stands for it, where the method says so itself; None: the kept
    token whose key is most similar (`VisualTokens.assigned`)."""

    def __len__(self) -> int:
        return len(self.index)

    def apply(self, tokens: VisualTokens) -> Float[Tensor, "M C"]:
        """The reduced features, in the dtype of the features."""
        return self.of(tokens.features, tokens.class_feature)

    def of(self, values: Float[Tensor, "N *D"], of_class: Tensor | None = None) -> Float[Tensor, "M *D"]:
        """Anything that each token has, reduced as the features are; `of_class` is what the class token has,
        [D] or [frames, D], and counts nothing where it is not given."""
        if self.weights is None:
            return values[self.index]
        weights, extra = self.weights, self.weights.shape[1] - len(values)
        if extra and of_class is None:
            weights = weights[:, : len(values)]
        elif extra and of_class is not None:
            values = torch.cat([values, of_class.expand(extra, -1)])
        return (weights @ values.to(weights.dtype)).to(values.dtype)

    def sizes(self, held: Float[Tensor, "N"] | None = None) -> Float[Tensor, "M"]:
        """How many patches each token stands for, float32, without gradients; `held` says how many each of
        the N did before (none: one).

        Each patch counts for the token that it is assigned to. Without an assignment a token that was only
        pruned stands for itself, and a patch with a weight in several tokens is divided among them in
        proportion to it: no patch counts twice. A class token counts as one.
        """
        if self.assignment is not None:
            each = torch.ones_like(self.assignment, dtype=torch.float) if held is None else held.float()
            return each.new_zeros(len(self)).scatter_add(0, self.assignment, each).clamp_min(1)
        if self.weights is None:
            return self.index.new_ones(len(self)).float() if held is None else held.float()[self.index]
        shares = self.weights.detach().float().abs()
        shares = shares / shares.sum(0).clamp_min(torch.finfo(shares.dtype).tiny)
        each = torch.ones_like(shares[0])
        if held is not None:
            each[: len(held)] = held
        return shares @ each

    def rows(self, order: Int[Tensor, "M"]) -> Reduction:
        """The same tokens in another order."""
        return Reduction(
            self.index[order],
            None if self.weights is None else self.weights[order],
            None if self.assignment is None else order.argsort()[self.assignment],
        )

    def medians(self, count: int) -> Int[Tensor, "M"]:
        """For each token the median of the places (of `count`) that went into it; for a class token its
        own place."""
        if self.weights is None:
            return self.index
        within = (self.weights[:, :count] != 0).cumsum(1)
        medians = (2 * within >= within[:, -1:]).int().argmax(1)
        return torch.where(within[:, -1] > 0, medians, self.index)

    def matrix(self, count: int) -> Float[Tensor, "M columns"]:
        """The weights, those of plain pruning (one-hot rows) included; `count` is N."""
        return ops.one_hot(self.index, count) if self.weights is None else self.weights

    def after(self, first: Reduction, count: int, class_tokens: int = 1) -> Reduction:
        """Both in one: this reduction of what `first` left of `count` tokens with so many class tokens.

        The class token that this one may keep is the mean of those. Where both say which token stands for
        each, so does the result.
        """
        index, assignment = first.index[self.index], None
        if self.assignment is not None and first.assignment is not None:
            assignment = self.assignment[first.assignment]
        if self.weights is None:
            weights = None if first.weights is None else first.weights[self.index]
            return Reduction(index, weights, assignment)
        weights = self.of(first.matrix(count))
        own = self.weights[:, len(first) :]
        if own.shape[1]:
            own = own.sum(1, keepdim=True) if class_tokens == 1 else own  # one for all frames
            weights = pad(weights, (0, count + class_tokens - weights.shape[1]))
            weights[:, count:] += own * own.shape[1] / class_tokens
        return Reduction(index, weights, assignment)


@dataclass(frozen=True)
class Merged:
    """Which of the M tokens that a vision tower left each of a picture's P patches went into (ToMe)."""

    grid: tuple[int, int, int]
    """Frames, rows, columns of the patches."""

    source: Int[Tensor, "P"]
    """The token each patch went into."""

    @classmethod
    def together(cls, frames: Sequence[Merged], count: int) -> Merged:
        """Of the frames of a clip, each merged into `count` tokens."""
        depth, rows, columns = frames[0].grid
        source = torch.cat([frame.source + number * count for number, frame in enumerate(frames)])
        return cls((len(frames) * depth, rows, columns), source)

    def reduction(self, count: int) -> Reduction:
        """The same as a matrix: each of the `count` tokens is the mean of its patches, at the first one."""
        rows = torch.arange(count, device=self.source.device)
        belongs = (self.source == rows[:, None]).float()
        return Reduction(belongs.argmax(1), belongs / belongs.sum(1, keepdim=True), self.source)


def joined(parts: dict[int, Reduction], sizes: list[int]) -> Reduction:
    """The reductions of some frames, by number, as one of the whole; `sizes` are those of all frames."""
    if len(sizes) == 1:
        return parts[0]
    offsets = [0, *accumulate(sizes)]
    index = torch.cat([part.index + offsets[number] for number, part in parts.items()])
    assignment, own = None, [part.assignment for part in parts.values() if part.assignment is not None]
    if len(own) == len(sizes):
        first = accumulate(map(len, parts.values()), initial=0)
        assignment = torch.cat([each + row for each, row in zip(own, first, strict=False)])
    if all(part.weights is None for part in parts.values()):
        return Reduction(index, None, assignment)
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
    return Reduction(index, weights, assignment)
