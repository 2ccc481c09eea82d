"""The few tensor functions that methods share.

Pure, on one image, and fit for `torch.vmap` over many: nothing waits for the device, and nothing is written
into a constant. Selections step by step are in `greedy`, many pictures at once in `batching`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from prumerge.errors import PrumergeError
from prumerge.ops.covering import in_frames, merged_by_similarity, most_similar
from prumerge.ops.facility import facility_location
from prumerge.ops.greedy import (
    best_coverage,
    farthest_points,
    important_and_far,
    largest_determinant,
    survivors,
)

__all__ = [
    "best_coverage",
    "facility_location",
    "farthest_points",
    "important_and_far",
    "in_frames",
    "largest_determinant",
    "merged_by_similarity",
    "most_similar",
    "survivors",
]


def outliers(scores: Float[Tensor, "N"], factor: float = 1.5) -> Bool[Tensor, "N"]:
    """Scores above the upper fence of the interquartile-range rule (Tukey's, as in PruMerge)."""
    return scores > upper_fence(scores, factor)


def upper_fence(scores: Float[Tensor, "N"], factor: float = 1.5) -> Float[Tensor, ""]:
    """Q3 + factor * (Q3 - Q1), quartiles by linear interpolation."""
    ordered = scores.float().sort().values
    places = [share * (len(scores) - 1) for share in (0.25, 0.75)]
    q1, q3 = (torch.lerp(ordered[math.floor(at)], ordered[math.ceil(at)], at % 1) for at in places)
    return q3 + factor * (q3 - q1)


def outlier_count(scores: Float[Tensor, "N"], factor: float = 1.5) -> Int[Tensor, ""]:
    """How many scores are outliers; the paper's mean share (5.5 %, 1/18) where none is, as in a flat
    picture."""
    count = (scores > upper_fence(scores, factor)).sum()
    return torch.where(count > 0, count, max(1, len(scores) // 18))


def top(scores: Float[Tensor, "N"], count: int) -> Int[Tensor, "count"]:
    """Places of the `count` highest scores, best first; equal scores in spatial order."""
    return scores.argsort(descending=True, stable=True)[:count]


def ranks(scores: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """How many tokens come before each by score; of equal ones those before it in spatial order."""
    return scores.argsort(descending=True, stable=True).argsort()


def nearest(
    keys: Float[Tensor, "N D"], index: Int[Tensor, "M"], k: int, *, pruned_only: bool = False
) -> Int[Tensor, "M k"]:
    """For each token in `index` the `k` other tokens whose keys have the highest cosine with its own.

    With `pruned_only` those in `index` are left out. `k` is cut to what there is.
    """
    keys = keys.float()
    # Rows need no normalising: the length of its own key does not change a token's ranking of the others.
    similarity = keys[index] @ keys.T / keys.norm(dim=-1).clamp_min(1e-12)
    if pruned_only:
        similarity = similarity.masked_fill(~complement(index, len(keys)), -torch.inf)
    else:
        similarity = similarity.scatter(1, index[:, None], -torch.inf)
    available = len(keys) - (len(index) if pruned_only else 1)
    return similarity.topk(min(k, available), dim=1, sorted=False).indices


def absorb(
    index: Int[Tensor, "M"],
    neighbours: Int[Tensor, "M k"],
    scores: Float[Tensor, "N"],
    *,
    average: bool,
    rest: Bool[Tensor, "N"] | None = None,
) -> Float[Tensor, "rows N"]:
    """Merging weights: each token in `index` takes in its `neighbours`, weighted by their scores (PruMerge,
    3.3).

    `average=False` is the token itself plus the weighted sum; `True` the weighted mean of both. With `rest`,
    one more row: the weighted sum (or mean) of those tokens.
    """
    own = scores[index] if average else torch.ones_like(index, dtype=scores.dtype)
    weights = scores.new_zeros(len(index), len(scores))
    weights = weights.scatter(1, neighbours, scores[neighbours]).scatter(1, index[:, None], own[:, None])
    if rest is not None:
        weights = torch.cat([weights, (scores * rest)[None]])
    if average:
        weights = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return weights


def cosines(
    vectors: Float[Tensor, "N C"],
    *,
    of: Int[Tensor, "M"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "_ N"]:
    """The cosine of every pair, or of those `of` some with all, without gradients; of a zero vector with
    anything 0."""
    directions = normalize(vectors.detach().to(dtype), dim=-1)
    return (directions if of is None else directions[of]) @ directions.T


def relevance(
    image: Float[Tensor, "N E"], text: Float[Tensor, "T E"], *, inverted: bool
) -> Float[Tensor, "N"]:
    """How well each patch matches the text, 0 to 1: the mean cosine with the T text embeddings, min-max
    normalised. Rows of zeros are no text.

    For embeddings of CLIP's two towers take `inverted=True`, as CDPruner and TRIM do: patches that show
    what the text names are the less similar ones there.
    """
    # The mean of cosines is the cosine with the mean direction, up to its length, which the scale takes away.
    words = text.any(dim=-1).sum().clamp_min(1)
    matches = normalize(image.float(), dim=-1) @ (normalize(text.float(), dim=-1).sum(dim=0) / words)
    matches = -matches if inverted else matches
    return (matches - matches.min()) / (matches.max() - matches.min() + 1e-6)


def allot(count: int, shares: Float[Tensor, "P"]) -> Int[Tensor, "P"]:
    """Divide `count` tokens in proportion to `shares`, rounded down; what is left over goes to the largest
    shares, one each."""
    shares = shares.clamp_min(0) + torch.finfo(shares.dtype).tiny  # all zero: even
    exact = count * (shares / shares.sum())
    whole = exact.floor().long()
    rank = shares.argsort(descending=True, stable=True).argsort()
    return whole + (rank < count - whole.sum())


def best_of_each(
    scores: Float[Tensor, "N"], part: Int[Tensor, "N"], budgets: Int[Tensor, "P"], count: int
) -> Int[Tensor, "count"]:
    """Of each part as many of its highest scores as its budget says, in spatial order.

    What a part has no tokens for goes to the highest scores of all the rest, so that `count` is met.
    """
    best_first = top(scores, len(scores))
    part = part[best_first]
    by_part = part.argsort(stable=True)  # part after part, best first in each
    sizes = torch.zeros_like(budgets).scatter_add(0, part, torch.ones_like(part))
    first = sizes.cumsum(0) - sizes
    order = torch.arange(len(part), device=part.device)
    rank = torch.zeros_like(part).scatter(0, by_part, order - first[part[by_part]])
    return best_first[places(rank < budgets[part], len(part))][:count].sort().values


def one_hot(index: Int[Tensor, "M"], count: int) -> Float[Tensor, "M count"]:
    """The weights of plain pruning: row i is 1 at index[i]."""
    return torch.zeros(len(index), count, device=index.device).scatter(1, index[:, None], 1.0)


def complement(index: Int[Tensor, "M"], count: int) -> Bool[Tensor, "count"]:
    """True where a place is not in `index`."""
    return torch.ones(count, dtype=torch.bool, device=index.device).scatter(0, index, False)


def places(where: Bool[Tensor, "N"], count: int) -> Int[Tensor, "count"]:
    """The places that are True, in order, when their `count` is known: without waiting for the device."""
    return where.int().argsort(descending=True, stable=True)[:count]


def packed(stays: Bool[Tensor, "B L"], *, on_the_right: bool) -> Int[Tensor, "B S"]:
    """The columns that stay in each row, in order, padded to the longest row (by some that do not)."""
    length = int(stays.sum(1).max())
    # A stable sort moves what stays to one side of its row without changing its order.
    order = (~stays if on_the_right else stays).int().argsort(dim=1, stable=True)
    return order[:, :length] if on_the_right else order[:, -length:]


def merged(
    values: Float[Tensor, "*B S D"], sizes: Float[Tensor, "*B S"], row: Int[Tensor, "*B S"], count: int
) -> tuple[Float[Tensor, "*B M D"], Float[Tensor, "*B M"]]:
    """The size-weighted mean of all tokens that go into each of `count` rows, and its own size."""
    into = torch.zeros(*sizes.shape[:-1], count, device=sizes.device).scatter_add(-1, row, sizes)
    total = torch.zeros(*into.shape, values.shape[-1], device=values.device).scatter_add(
        -2, row[..., None].expand_as(values), values * sizes[..., None]
    )
    return (total / into[..., None]).to(values.dtype), into


def drawn(seed: int, count: int) -> Float[Tensor, "count"]:
    """Standard normal numbers on the CPU, the same for a seed everywhere, inside `torch.vmap` too."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(count, dtype=np.float32))


def evenly(count: int, among: int, device: torch.device) -> Int[Tensor, "count"]:
    """`count` different places spread evenly over 0 to `among` - 1, each in the middle of its share."""
    return (torch.arange(count, device=device) * 2 + 1) * among // max(2 * count, 1)


def listed(numbers: int | str) -> tuple[int, ...]:
    """(8, 16, 24) from "8-16-24"."""
    parts = str(numbers).split("-")
    if not all(part.isdecimal() for part in parts):
        raise PrumergeError(f"whole numbers in a row are written as 8-16-24, not {numbers!r}")
    return tuple(map(int, parts))


def rows_by_columns(text: str) -> tuple[int, int]:
    """(5, 8) from "5x8"."""
    rows, separator, columns = text.lower().partition("x")
    if not (separator and rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise PrumergeError(f"a grid is written as rows x columns, such as 5x8, not {text!r}")
    return int(rows), int(columns)


def cells(
    grid: tuple[int, int, int], count: int | None, shape: str | None, device: torch.device
) -> tuple[Int[Tensor, "N"], int]:
    """Divide a grid of tokens into compact cells of nearly equal size: the cell of each token, and how many
    there are.

    Either into `shape` (rows x columns) cells in each frame; or into `count` cells, frames stacked as rows.
    Where `count` is no product of whole numbers near the grid's shape, some bands of cells hold one cell
    more.
    """
    frames, rows, columns = grid
    if shape is not None:
        down, across = rows_by_columns(shape)
        if down > rows or across > columns:
            raise PrumergeError(
                f"a grid of {shape} is finer than the {rows}x{columns} visual tokens of this image"
            )
        bands, count = frames * down, frames * down * across
    else:
        assert count is not None
        aspect = frames * rows / columns
        bands = min(frames * rows, count, max(math.ceil(count / columns), round(math.sqrt(count * aspect))))
    first = torch.arange(bands + 1, device=device) * count // bands  # first cell of each band
    band = torch.arange(frames * rows, device=device) * bands // (frames * rows)
    inside = first.diff()[band][:, None] * torch.arange(columns, device=device) // columns
    return (first[band][:, None] + inside).flatten(), count


def members(cell: Int[Tensor, "N"], count: int) -> Float[Tensor, "count N"]:
    """1 where a token belongs to the cell."""
    return one_hot(cell, count).T.contiguous()


def centres(cell: Int[Tensor, "N"], count: int, columns: int) -> Int[Tensor, "count"]:
    """The place in the middle of each (rectangular) cell; the upper left of the middle ones where sides are
    even."""
    place = torch.arange(len(cell), device=cell.device)
    belongs = members(cell, count)
    size = belongs.sum(1)
    row, column = belongs @ (place // columns).float() / size, belongs @ (place % columns).float() / size
    return (row + 1e-3).long() * columns + (column + 1e-3).long()
