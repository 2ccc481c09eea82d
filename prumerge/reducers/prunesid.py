from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from prumerge import ops
from prumerge.reducer import FrameByFrame
from prumerge.tokens import Reduction, VisualTokens

_COMPONENTS = 4  # tokens kept for each of them
_LARGEST = 5  # tokens of one group, for each 64 that are kept


@dataclass(frozen=True, kw_only=True)
class PruneSID(FrameByFrame):
    """PruneSID: groups by principal components, and of each the important tokens that differ.

    Of K tokens: the K / 4 principal components of sigmoid(features), with patches as variables and channels
    as samples, divide the picture, each patch going to the component in which its weight is largest. In each
    group the highest class attention survives and suppresses what is more similar to it (cosine) than K / 32
    times the mean of all pairs, then the next, and so on. Every group keeps one token, and of the rest as
    many as it has of all survivors, by cumulative rounding, but at most 5 for each 64 of K unless that is too
    few for all; what is left over goes to the groups with most survivors. A group keeps its survivors first,
    then others, both by attention. The class token is kept as well, as one of K, where there is one.

    Components are exact (float64), where the official code (https://github.com/ZhengyaoFang/PruneSID)
    approximates them by a random projection, so that its choice varies from run to run. Tokens stay in
    spatial order; there group by group. Written from a description of that code, which has no licence.
    """

    paper = "https://arxiv.org/abs/2603.09480"
    needs = "attention"

    keep: int | float = 1 / 9
    """Visual tokens to keep, the class token included: a count or a share below 1 (1/9 is 64 of 576)."""

    class_token: bool | None = None
    """Whether the class token is kept: on, off, or none: where there is one (official code)."""

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        has_one = tokens.class_feature is not None
        if self.class_token:
            self.need(has_one, "a class token", instead="prunesid:class_token=off")
        class_rows = int(has_one if self.class_token is None else self.class_token)
        attention, available = tokens.scored_by("writer").attention(), len(tokens)
        patches = count - class_rows
        index = torch.arange(0, device=attention.device)
        if patches:
            group, groups = _groups(tokens.features, max(1, count // _COMPONENTS))
            survives = ops.survivors(
                _duplicates(tokens.features, count / 32) & (group[:, None] == group), attention
            )
            budgets = _budgets(ops.members(group, groups), survives, count, patches)
            # Survivors first, both by rank: sums with attention itself would round.
            scores = (available - ops.ranks(attention) + available * survives).float()
            index = ops.best_of_each(scores, group, budgets, patches)
        if not class_rows:
            return Reduction(index)
        rest = ops.complement(index, available)
        place = attention.masked_fill(~rest, -1).argmax(dim=0, keepdim=True)  # its row stands there
        own = torch.arange(available + 1, device=index.device) == available  # its column is the last
        weights = torch.cat([own[None].float(), pad(ops.one_hot(index, available), (0, 1))])
        return Reduction(torch.cat([place, index]), weights)


def _groups(features: Float[Tensor, "N C"], wanted: int) -> tuple[Int[Tensor, "N"], int]:
    """The principal component that each patch weighs most in, the strongest being 0, and how many there
    are."""
    groups = min(wanted, *features.shape)
    values = features.detach().float().sigmoid().double()
    values = values - values.mean(dim=1, keepdim=True)
    components = torch.linalg.eigh(values @ values.T).eigenvectors.flip(1)[:, :groups]
    return components.abs().argmax(dim=1), groups


def _duplicates(features: Float[Tensor, "N C"], factor: float) -> Tensor:
    """Which patches are more similar than `factor` times the mean of all pairs."""
    similarity = ops.cosines(features)
    pairs = max(1, len(similarity) * (len(similarity) - 1))
    return similarity > factor * (similarity.sum() - similarity.diagonal().sum()) / pairs


def _budgets(belongs: Float[Tensor, "G N"], survives: Tensor, count: int, patches: int) -> Int[Tensor, "G"]:
    """How many tokens each group keeps, `patches` in all."""
    sizes, survivors = belongs.sum(dim=1).long(), (belongs @ survives.float()).long()
    limit = survivors.clamp_max(_LARGEST * math.ceil(count / 64))
    raised = torch.arange(belongs.shape[1], device=sizes.device)[:, None]
    too_low = torch.minimum(limit + raised, sizes).sum(dim=1) < count
    limit = torch.minimum(limit + too_low.sum(), sizes)
    least = sizes.clamp_max(1)
    ends = (survivors.cumsum(dim=0) * (patches - least.sum())).float() / survivors.sum()
    budgets = torch.minimum(ends.round().long().diff(prepend=least.new_zeros(1)) + least, limit)
    order = survivors.argsort(descending=True, stable=True)
    room = (limit - budgets)[order]
    missing = (patches - budgets.sum() - room.cumsum(dim=0) + room).clamp_min(0)
    return budgets.scatter_add(0, order, torch.minimum(missing, room))
