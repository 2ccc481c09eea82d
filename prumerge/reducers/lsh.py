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
    meet in all rounds are one group. First the mean key is taken away, which all keys of a tower share. With
    `keep` the largest groups stay, and members of others go to the one with the most similar mean; where
    there are too few, the largest are split along a random line. Nothing is compared with all others, so it
    suits very long inputs, before another method: `lsh:keep=2048+medoids:keep=256`.
    """

    paper = "https://arxiv.org/abs/2001.04451"
    needs = "keys"
    adaptive = True

    rounds: int = 2
    """Hashes that are combined: their buckets multiply."""

    buckets: int | None = None
    """Of each round, an even number; none: so many that all rounds together have twice `keep`, or without it
    an eighth of the tokens."""

    seed: int = 0
    """Another seed, other rotations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise PrumergeError(f"{self}: rounds must be at least 1")
        if self.buckets is not None and (self.buckets < 2 or self.buckets % 2):
            raise PrumergeError(f"{self}: buckets is an even number, each direction has its opposite")

    @torch.no_grad()
    def __call__(self, tokens: VisualTokens) -> Reduction:
        count = None if self.keep is None else self.count(len(tokens))
        keys = tokens.keys.detach().float()
        keys = normalize(keys - keys.mean(0), dim=-1)
        codes = len(keys) / 8 if count is None else 2 * count
        buckets = self.buckets or 2 * max(1, math.ceil(codes ** (1 / self.rounds) / 2))
        # Drawn on the CPU: the same buckets on every device.
        generator = torch.Generator().manual_seed(self.seed)
        rotations = torch.randn(self.rounds, keys.shape[1], buckets // 2, generator=generator)
        line = torch.randn(keys.shape[1], generator=generator).to(keys.device)
        group = hashed(keys, rotations.to(keys.device))
        available = int(group.max()) + 1
        if count is None:
            count = available
        elif available > count:
            group = largest(keys, group, count)
        elif available < count:
            group = split(keys @ line, group, count)
        return _means(keys, group, count)


def hashed(keys: Float[Tensor, "N D"], rotations: Float[Tensor, "R D half"]) -> Int[Tensor, "N"]:
    """The group of each key: those that fall into one bucket in all rounds are together; none is empty."""
    group = torch.zeros(len(keys), dtype=torch.long, device=keys.device)
    for rotation in rotations:
        turned = keys @ rotation
        bucket = torch.cat([turned, -turned], dim=1).argmax(1)
        group = (group * 2 * rotation.shape[1] + bucket).unique(return_inverse=True)[1]
    return group


def largest(keys: Float[Tensor, "N D"], group: Int[Tensor, "N"], count: int) -> Int[Tensor, "N"]:
    """The `count` largest groups; the others' members go to the one whose mean is most similar."""
    sizes = group.bincount()
    kept = ops.top(sizes.float(), count)
    row = torch.full_like(sizes, count).scatter(0, kept, torch.arange(count, device=kept.device))[group]
    homeless = (row == count).nonzero()[:, 0]
    centres = _sums(keys, row, count + 1)[:count]
    return row.scatter(0, homeless, (normalize(centres, dim=-1) @ keys[homeless].T).argmax(0))


def split(along: Float[Tensor, "N"], group: Int[Tensor, "N"], count: int) -> Int[Tensor, "N"]:
    """The largest groups divided into parts of one size, in the order of `along`, until there are `count`:
    each time the one whose parts are the largest gets one more (D'Hondt)."""
    sizes = group.bincount()
    order = along.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]  # group after group
    first = sizes.cumsum(0) - sizes
    place = torch.arange(len(group), device=group.device)
    rank = torch.zeros_like(group).scatter(0, order, place - first[group[order]])
    parts_of = (sizes[group] / rank).masked_fill(rank == 0, 0)
    more = group[ops.top(parts_of, count - len(sizes))]
    parts = 1 + more.bincount(minlength=len(sizes))
    return (parts.cumsum(0) - parts)[group] + rank * parts[group] // sizes[group]


def _sums(values: Float[Tensor, "N D"], group: Int[Tensor, "N"], count: int) -> Float[Tensor, "count D"]:
    return values.new_zeros(count, values.shape[1]).index_add(0, group, values)


def _means(keys: Float[Tensor, "N D"], group: Int[Tensor, "N"], count: int) -> Reduction:
    """Each group as its mean, at the member whose key is most similar to the mean of theirs: at the first
    where several are, as any two are alone."""
    match = (keys * normalize(_sums(keys, group, count), dim=-1)[group]).sum(1)
    best = match.new_zeros(count).scatter_reduce(0, group, match, "amax", include_self=False)
    place = torch.arange(len(group), device=group.device)
    near = place.masked_fill(match < best[group] - 1e-5, len(group))
    index, rows = near.new_zeros(count).scatter_reduce(0, group, near, "amin", include_self=False).sort()
    group = rows.argsort()[group]
    belongs = ops.members(group, count)
    return Reduction(index, belongs / belongs.sum(1, keepdim=True), group)
