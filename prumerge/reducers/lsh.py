from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Lsh(Reducer):
    """LSH: tokens whose keys fall into one bucket of Reformer's hash become their mean.

    A key of length 1 falls into bucket argmax([k R, -k R]), R random (section 2 of the paper); those that
    meet in all rounds are one group. First the mean key is taken away, which all keys of a tower share. The
    largest groups stay, and members of others go to the one whose mean is most similar; where there are too
    few, the largest are split along a random line. No token is compared with all others, so that it suits
    very long inputs, before another method: `lsh:keep=2048+medoids:keep=256`.
    """

    paper = "https://arxiv.org/abs/2001.04451"
    needs = "keys"
    decides = "together"

    keep: int | float = 1 / 16
    """Groups: a count or a share below 1 (1/16 is 36 of 576)."""

    rounds: int = 2
    """Hashes that are combined: their buckets multiply."""

    buckets: int | None = None
    """Of each round, an even number; none: so many that all rounds together have twice `keep`."""

    seed: int = 0
    """Another seed, other rotations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1 or self.seed < 0:
            raise PrumergeError(f"{self}: rounds must be at least 1, and seed not negative")
        if self.buckets is not None and (self.buckets < 2 or self.buckets % 2):
            raise PrumergeError(f"{self}: buckets is an even number, each direction has its opposite")

    def __call__(self, tokens: VisualTokens) -> Reduction:
        count, keys = self.count(len(tokens)), tokens.keys.detach().float()
        keys = normalize(keys - keys.mean(0), dim=-1)
        buckets = self.buckets or 2 * max(1, math.ceil((2 * count) ** (1 / self.rounds) / 2))
        width, directions = keys.shape[1], self.rounds * buckets // 2
        drawn = ops.drawn(self.seed, width * (directions + 1)).to(keys.device)
        group = hashed(keys, drawn[:-width].view(self.rounds, width, -1))
        rank, sizes = ranked(group, keys @ drawn[-width:])
        row, homeless = divided(group, rank, sizes, count)
        centres = normalize(_sums(keys, row, count + 1)[:count], dim=-1)
        row = torch.where(homeless, (centres @ keys.T).argmax(0), row)
        index, row = _placed(keys, row, count)
        belongs = ops.members(row, count)
        return Reduction(index, belongs / belongs.sum(1, keepdim=True), row)


def hashed(keys: Float[Tensor, "N D"], rotations: Float[Tensor, "R D half"]) -> Int[Tensor, "N"]:
    """The group of each key, numbered without gaps: those that fall into one bucket in all rounds are
    together."""
    group = torch.zeros(len(keys), dtype=torch.long, device=keys.device)
    for rotation in rotations:
        turned = keys @ rotation
        code = group * 2 * rotation.shape[1] + torch.cat([turned, -turned], dim=1).argmax(1)
        order = code.argsort(stable=True)
        new = (code[order].diff() != 0).long().cumsum(0)
        group = torch.zeros_like(code).scatter(0, order, torch.cat([new[:0].new_zeros(1), new]))
    return group


def ranked(group: Int[Tensor, "N"], along: Float[Tensor, "N"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Which place each token has in its group by `along`, and how many each group has (N numbers)."""
    place = torch.arange(len(group), device=group.device)
    sizes = torch.zeros_like(group).scatter_add(0, group, torch.ones_like(group))
    order = along.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]  # group after group
    first = sizes.cumsum(0) - sizes
    return torch.zeros_like(group).scatter(0, order, place - first[group[order]]), sizes


def divided(
    group: Int[Tensor, "N"], rank: Int[Tensor, "N"], sizes: Int[Tensor, "N"], count: int
) -> tuple[Int[Tensor, "N"], Tensor]:
    """The row of `count` that each token goes into, and which have none yet (theirs is `count`).

    The largest groups get a row each; rows that are left over go, one after the other, to the group whose
    parts are the largest then (D'Hondt's method), in the order of `rank`.
    """
    held = sizes[group].float()
    claim = torch.where(rank == 0, len(group) + held, held / rank.clamp_min(1))
    rows = torch.zeros_like(group)
    rows = rows.scatter_add(0, group[ops.top(claim, count)], torch.ones_like(group[:count]))
    own = rows[group]
    row = (rows.cumsum(0) - rows)[group] + rank * own // sizes[group]
    return torch.where(own == 0, count, row), own == 0


def _sums(values: Float[Tensor, "N D"], row: Int[Tensor, "N"], count: int) -> Float[Tensor, "count D"]:
    into = torch.zeros(count, values.shape[1], device=values.device)
    return into.scatter_add(0, row[:, None].expand_as(values), values)


def _placed(
    keys: Float[Tensor, "N D"], row: Int[Tensor, "N"], count: int
) -> tuple[Int[Tensor, "count"], Int[Tensor, "N"]]:
    """Where each row stands, in raster order, and the rows in this order: at the member whose key is most
    similar to the mean of theirs, the first where several are, as any two alone are."""
    match = (keys * normalize(_sums(keys, row, count), dim=-1)[row]).sum(1)
    sizes = torch.zeros_like(row[:count]).scatter_add(0, row, torch.ones_like(row))
    first = sizes.cumsum(0) - sizes

    def best(score: Tensor) -> Int[Tensor, "count"]:
        order = score.argsort(descending=True, stable=True)
        return order[row[order].argsort(stable=True)][first]

    near = match >= match[best(match)][row] - 1e-5
    index, rows = best(near.int()).sort()
    return index, rows.argsort()[row]
