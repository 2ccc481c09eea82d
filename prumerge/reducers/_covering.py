"""What methods share that cover the picture: how much of it each token stands for when it is chosen."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from prumerge import ops
from prumerge.tokens import VisualTokens

_FRAME = 3
"""Times its even share of the budget that a frame gets at most."""


def weight_of(tokens: VisualTokens) -> Float[Tensor, "N"]:
    """How much each token counts: the attention it receives in the layer that wrote the features."""
    return tokens.scored_by("writer").attention().detach()


def covered(tokens: VisualTokens, count: int) -> Float[Tensor, "N"]:
    """The share of sum_j weight_j max_i cos(key_i, key_j) that each token adds when it is chosen, greedily
    and within its frame, for at least the `count` that add most; of others 0."""
    sizes = tokens.frame_sizes
    steps = count if len(sizes) == 1 else min(max(sizes), _FRAME * math.ceil(count / len(sizes)))
    directions = ops.in_frames(normalize(tokens.keys.detach().float(), dim=-1), sizes)
    weight = weight_of(tokens)
    added = ops.facility_location(directions, ops.in_frames(weight / weight.sum(), sizes), steps)
    return torch.cat([frame[:size] for frame, size in zip(added, sizes, strict=True)])
