"""Which kept token stands for which patch, and what a kept token takes from those it stands for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, pad


def most_similar(
    keys: Float[Tensor, "N D"], index: Int[Tensor, "M"], sizes: Sequence[int]
) -> Int[Tensor, "N"]:
    """For each token the row in `index` of the kept one whose key has the highest cosine with its own; of a
    kept token its own row.

    `sizes` are those of the frames: a kept token of another frame counts only where none of the own is kept.
    """
    keys = keys.detach().float()
    kept, found, first = normalize(keys[index], dim=-1), [], 0
    for part in keys.split(list(sizes)):
        similarity = kept @ part.T  # the length of its own key changes no token's ranking of the kept ones
        if len(sizes) > 1:
            here = (index >= first) & (index < first + len(part))
            bound = part.norm(dim=-1).clamp_min(1e-12)  # no similarity is larger
            similarity = similarity + 3 * bound * here[:, None]
        found.append(similarity.argmax(dim=0))
        first += len(part)
    rows = torch.arange(len(index), device=index.device)
    return torch.cat(found).scatter(0, index, rows)


def merged_by_similarity(
    features: Float[Tensor, "N C"],
    index: Int[Tensor, "M"],
    own: Int[Tensor, "N"],
    share: float,
    weight: Float[Tensor, "N"],
) -> Float[Tensor, "M N"]:
    """Merging weights: each token in `index` moves `share` of the way to the mean of the others that it
    stands for, and keeps its length.

    `own` is the row of the token that stands for each, `weight` how much each counts in that mean. A token
    that stands for itself alone stays as it is.
    """
    other, nothing = weight.scatter(0, index, 0.0), torch.zeros(len(index), device=features.device)
    mass = nothing.scatter_add(0, own, other)
    alone = mass <= torch.finfo(mass.dtype).tiny
    moved = torch.where(alone, 0.0, share)
    value = (moved / mass.masked_fill(alone, 1))[own] * other
    value = value.scatter(0, index, 1 - moved)
    values = features.detach().float()
    before = values[index].norm(dim=-1)
    after = torch.zeros_like(values[index]).scatter_add(
        0, own[:, None].expand_as(values), values * value[:, None]
    )
    after = after.norm(dim=-1)
    scale = torch.where(alone | (after == 0), 1.0, before / after)
    value = value * scale[own]
    return value.new_zeros(len(index), len(own)).scatter(0, own[None], value[None])


def in_frames(values: Float[Tensor, "N *D"], sizes: Sequence[int]) -> Float[Tensor, "F S *D"]:
    """Tokens with an axis for their frames; frames that are smaller than others end in zeros."""
    if min(sizes) == max(sizes):
        return values.unflatten(0, (len(sizes), -1))
    fill = (0, 0) * (values.ndim - 1)
    return torch.stack([pad(part, (*fill, 0, max(sizes) - len(part))) for part in values.split(list(sizes))])
