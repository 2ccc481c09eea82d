"""Selections that add one token after the other: a step is a handful of operators, whatever the number of
tokens, and never waits for the device."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from prumerge.ops.batching import whole


def farthest_points(
    distance: Float[Tensor, "N N"], first: Int[Tensor, "1"], count: int
) -> Int[Tensor, "count"]:
    """Farthest point sampling: from `first` on, each time the point farthest from all that are chosen."""
    chosen, nearest_chosen = [first], distance[first][0]
    for _ in range(count - 1):
        nearest_chosen = nearest_chosen.scatter(0, chosen[-1], -torch.inf)
        chosen.append(nearest_chosen.argmax(dim=0, keepdim=True))
        nearest_chosen = torch.minimum(nearest_chosen, distance[chosen[-1]][0])
    return torch.cat(chosen)


def important_and_far(
    distance: Float[Tensor, "N N"],
    weight: Float[Tensor, "N"],
    first: Bool[Tensor, "N"],
    count: int,
    steps: int,
) -> Int[Tensor, "count"]:
    """Those in `first` (at least one, and at least `count - steps`), and to them, until there are `count`,
    each time the point with the largest product of its weight and its distance to the nearest chosen one;
    in spatial order."""
    taken = torch.zeros_like(weight).masked_fill(first, -torch.inf)
    nearest, chosen = (
        distance.masked_fill(~first[:, None], torch.inf).amin(dim=0),
        [first.int().argmax()[None]],
    )
    for _ in range(steps):
        chosen.append(torch.addcmul(taken, nearest, weight).argmax(dim=0, keepdim=True))
        taken = taken.scatter(0, chosen[-1], -torch.inf)
        nearest = torch.minimum(nearest, distance[chosen[-1]][0])
    # Once all are taken one comes again: its first place counts.
    rank = torch.arange(steps + 1, 0, -1, device=weight.device, dtype=weight.dtype)
    rank = torch.zeros_like(weight).scatter_reduce(0, torch.cat(chosen), rank, "amax")
    return rank.masked_fill(first, torch.inf).argsort(descending=True, stable=True)[:count].sort().values


def best_coverage(
    similarity: Float[Tensor, "N N"], weight: Float[Tensor, "N"], count: int
) -> Int[Tensor, "count"]:
    """Each time the token that covers most of what is not covered yet, times its weight (at least 0).

    A token covers each other one as far as their similarity goes. Where nothing is left to cover, the first
    in spatial order. `similarity` is used up.
    """
    left, chosen = similarity.relu_(), []  # how much of each token (a column) each other one would add
    for _ in range(count):
        best = (left.sum(dim=1) * weight).argmax(dim=0, keepdim=True)
        chosen.append(best)
        left.sub_(left[best]).relu_()
    return first_of(torch.cat(chosen), torch.zeros_like(weight))


def survivors(similar: Bool[Tensor, "N N"], scores: Float[Tensor, "N"]) -> Bool[Tensor, "N"]:
    """Non-maximum suppression: best first, who survives suppresses all that are similar to it; of equal
    scores the first in spatial order comes first."""
    rank = scores.argsort(descending=True, stable=True).argsort()
    return whole(_survivors, (similar & (rank < rank[:, None])).float())


@torch.no_grad()
def _survivors(rivals: Float[Tensor, "B N N"]) -> Bool[Tensor, "B N"]:
    """Whom nobody better that survives is similar to: `rivals` are those who are better and similar. Each
    round settles the places whose rivals are settled; how many rounds that takes depends on data, so where
    looking means to wait for the device all that may be needed are taken."""
    alive = torch.ones_like(rivals[..., :1])
    for _ in range(rivals.shape[1]):
        before, alive = alive, (rivals @ alive == 0).float()
        if rivals.device.type == "cpu" and torch.equal(before, alive):
            break
    return alive[..., 0] > 0


def largest_determinant(kernel: Float[Tensor, "N N"], count: int) -> Int[Tensor, "count"]:
    """The subset that maximises the kernel's determinant, greedily (Chen et al., arXiv 1709.05135): beyond
    the kernel's rank, where nothing is gained but rounding errors, by what those say."""
    return whole(lambda kernels: _largest_determinants(kernels, count), kernel)


@torch.no_grad()
def _largest_determinants(kernel: Float[Tensor, "B N N"], count: int) -> Int[Tensor, "B count"]:
    """An LDL factorisation with the largest gain as pivot. Buffers and their parts are made before the loop,
    in which every operator writes into them."""
    gain = kernel.diagonal(dim1=1, dim2=2)  # what each token would add to the determinant, as a factor
    limit = torch.finfo(gain.dtype)
    nothing = limit.eps * gain.amax(dim=1, keepdim=True) + limit.tiny
    # One more token gains nothing and changes nothing: it is chosen when no other gains more.
    gain = torch.cat([gain, nothing], dim=1)[:, None]
    batch, _, width = gain.shape
    known = pad(
        kernel, (0, 1 + count, 0, 1)
    )  # a token's row of the kernel, and what each step left of its own
    row = known.new_empty(batch, 1, width + count)
    scaled = known.new_zeros(batch, count, width)
    best = torch.empty(count, batch, 1, 1, dtype=torch.long, device=kernel.device)
    own = gain.new_empty(batch, 1, 1)
    places, residuals = best.expand(-1, -1, -1, width + count), known[:, None, :, width:]
    to_all, to_chosen = row.split([width, count], dim=2)
    for at, place, residual, part in zip(
        best.unbind(0), places.unbind(0), residuals.unbind(-1), scaled.split(1, dim=1), strict=True
    ):
        torch.max(gain, dim=2, keepdim=True, out=(own, at))
        torch.gather(known, 1, place, out=row)
        torch.baddbmm(to_all, to_chosen, scaled, alpha=-1, out=residual)
        torch.div(residual, own, out=part)
        gain.addcmul_(residual, part, value=-1)  # of the chosen one exactly 0 is left
    gain = gain[:, 0]
    chosen = torch.zeros_like(gain).scatter(1, best[:, :, 0, 0].T, torch.inf)
    return (gain + chosen)[:, :-1].argsort(dim=1, descending=True, stable=True)[:, :count]


def first_of(chosen: Int[Tensor, "count"], otherwise: Float[Tensor, "N"]) -> Int[Tensor, "count"]:
    """The chosen tokens, in spatial order; for one that was chosen twice another, the highest of
    `otherwise`."""
    ranked = otherwise.scatter(0, chosen, torch.inf).argsort(descending=True, stable=True)
    return ranked[: len(chosen)]
