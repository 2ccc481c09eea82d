"""Facility location: in each frame the tokens that stand best for all of its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prumerge.ops.batching import whole

_CANDIDATES = 32
"""On the CPU: so many gains are computed anew at first; twice as many if that does not decide, and so on."""


def facility_location(
    directions: Float[Tensor, "F S D"], weight: Float[Tensor, "F S"], steps: int
) -> Float[Tensor, "F S"]:
    """For `steps` tokens of each frame, chosen greedily, what each added when it was chosen; 0 for others.

    A set of tokens is worth sum_j weight_j max_i similarity_ij, j over all tokens of the frame and i over the
    set, where similarities are products of `directions` and those below 0 count as 0. That is monotone and
    submodular: the greedy choice reaches at least 1 - 1/e of the best, what is added never grows, and so the
    highest of several frames are the greedy choice among all of them. Without gradients.
    """
    return whole(lambda vectors, weights: _located(vectors, weights, steps), directions.detach(), weight)


@torch.no_grad()
def _located(
    directions: Float[Tensor, "B F S D"], weight: Float[Tensor, "B F S"], steps: int
) -> Float[Tensor, "B F S"]:
    vectors, weights = directions.flatten(0, 1), weight.flatten(0, 1)
    if directions.device.type == "cpu":
        frames = zip(vectors.numpy(), weights.numpy(), strict=True)
        added = torch.from_numpy(np.stack([lazily(*frame, steps) for frame in frames]))
    else:
        added = at_once(vectors, weights, steps)
    return added.view_as(weight)


def at_once(
    directions: Float[Tensor, "B S D"], weight: Float[Tensor, "B S"], steps: int
) -> Float[Tensor, "B S"]:
    """All frames together, and every gain anew at each step: five operators, which write into buffers and
    wait for nothing. For devices on which an operator's size hardly counts."""
    left = (directions @ directions.mT).relu_()  # how much of each (a column) each other one would add
    batch, size = weight.shape
    columns, gain, row = weight[..., None], left.new_empty(batch, size, 1), left.new_empty(batch, 1, size)
    most = left.new_empty(steps, batch, 1, 1)
    best = torch.empty_like(most, dtype=torch.long)
    for added, at, place in zip(most, best, best.expand(-1, -1, -1, size), strict=True):
        torch.bmm(left, columns, out=gain)
        torch.max(gain, dim=1, keepdim=True, out=(added, at))
        torch.gather(left, 1, place, out=row)
        left.sub_(row).relu_()
    # By rounding alone one might add more than the one before it. Who comes twice adds nothing.
    never_more = most.cummin(dim=0).values
    return torch.zeros_like(weight).scatter_add(1, best[:, :, 0, 0].T, never_more[:, :, 0, 0].T)


def lazily(
    directions: Float[np.ndarray, "S D"], weight: Float[np.ndarray, "S"], steps: int
) -> Float[np.ndarray, "S"]:
    """One frame, and only gains that may have become the largest are computed anew (Minoux 1978): what a
    token added when it was last looked at is the most that it can add now. For CPUs, where passing over all
    similarities at each step costs more than their product; in NumPy, as choosing whom to look at asks for
    values."""
    similarity = _similarities(directions)
    bound, covered, added = _weighed(similarity, weight), np.zeros_like(weight), np.zeros_like(weight)
    last = np.inf
    for _ in range(steps):
        fresh: np.ndarray[Any, Any] = np.zeros(len(weight), dtype=bool)
        count = min(_CANDIDATES, len(weight))
        while not fresh[best := bound.argmax()]:
            candidates = np.argpartition(bound, -count)[-count:]
            candidates[0] = best  # which equal ones may have left out
            candidates = candidates[~fresh[candidates]]
            bound[candidates] = _weighed(np.maximum(similarity[candidates] - covered, 0), weight)
            fresh[candidates] = True
            count = min(2 * count, len(weight))
        last = min(last, bound[best])
        if last <= 0:  # nothing is left to cover
            break
        added[best], bound[best] = last, 0
        np.maximum(covered, similarity[best], out=covered)
    return added


def _similarities(directions: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S S"]:
    """Products of all pairs, those below 0 as 0; NumPy computes half of a product of a matrix with itself."""
    if _in_the_way():
        vectors = torch.from_numpy(directions)
        return (vectors @ vectors.T).relu_().numpy()
    similarity = directions @ directions.T
    return np.maximum(similarity, 0, out=similarity)


def _weighed(gains: Float[np.ndarray, "C S"], weight: Float[np.ndarray, "S"]) -> Float[np.ndarray, "C"]:
    """The sum of each row by weight."""
    return np.einsum("ij,j->i", gains, weight) if _in_the_way() else gains @ weight


def _in_the_way() -> bool:
    """Whether threads of NumPy's products and torch's wait for each other, by 8 ms at a time on two cores:
    where torch has several."""
    return torch.get_num_threads() > 1
