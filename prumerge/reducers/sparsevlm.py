from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import LayerReducer, Reducer
from prumerge.tokens import Reduction, VisualTokens

# Of 576 tokens: what is called so many, and what its three stages keep.
_OFFICIAL = {
    0: (0, 0, 0),
    64: (66, 30, 17),
    96: (238, 48, 26),
    128: (303, 110, 36),
    192: (300, 200, 110),
    576: (576, 576, 576),
}


@dataclass(frozen=True, kw_only=True)
class SparseVLM(LayerReducer):
    """SparseVLM: the words that the picture is about rate its tokens; dropped ones are recycled into a few.

    Raters are the words after the picture whose embeddings match it more than average. At three stages tokens
    are ranked by the raters' attention (mean over heads); the best 30 % of the dropped are clustered by
    density peaks, and each cluster's mean is read after the kept tokens. As in the official code, which has
    tables for keep = 64, 96, 128, 192 of 576 in place of the paper's ranks of matrices; others are
    interpolated.
    """

    paper = "https://arxiv.org/abs/2410.04417"
    needs = "text, attention"

    keep: int | float = 1 / 3
    """What the official tables are called by, about the mean over layers: a count or a share below 1."""

    layers: int | str | None = None
    """Layers before which its three stages end; none: 3-7-16 of 32."""

    recycle: float = 0.3
    """Share of the dropped tokens that is clustered and merged; 0: none."""

    positions: Literal["original", "compact"] = "compact"
    """Position ids of what is left: as they were, or counted anew without gaps (the official code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.recycle <= 1:
            raise PrumergeError(f"{self}: recycle is a share from 0 to 1")
        if self.layers is not None and len(ops.listed(self.layers)) != 3:
            raise PrumergeError(f"{self}: there are three stages, such as layers=3-7-16")

    def depths(self, layers: int) -> tuple[int, ...]:
        if self.layers is not None:
            return ops.listed(self.layers)
        first = max(1, round(layers * 3 / 32))
        second = max(first + 1, round(layers * 7 / 32))
        return first, second, max(second + 1, layers // 2)

    def at(self, stage: int, stages: int, available: int) -> Reducer:
        nominal = 576 * self.count(available) / available
        low = max(name for name in _OFFICIAL if name <= nominal)
        high = min(name for name in _OFFICIAL if name >= nominal)
        between = (nominal - low) / max(high - low, 1)
        kept = _OFFICIAL[low][stage] * (1 - between) + _OFFICIAL[high][stage] * between
        return replace(self, keep=max(1, round(kept * available / 576)))

    def askers(self, visual: Float[Tensor, "N H"], text: Float[Tensor, "T H"]) -> Bool[Tensor, "T"]:
        """The raters (section 3.2): words that get more than the average of what visual tokens look for."""
        match = (visual.float() @ text.float().T).softmax(-1).mean(0)
        return match >= match.mean()

    def __call__(self, tokens: VisualTokens) -> Reduction:
        count = self.count(len(tokens))
        ranked = ops.top(self.received(tokens), len(tokens))
        kept, dropped = ranked[:count].sort().values, ranked[count:]
        recycled = dropped[: int(len(dropped) * self.recycle) + 1]
        if not (self.recycle and len(recycled)):
            return Reduction(kept)
        centres, cluster = density_peaks(tokens.features[recycled].float(), len(recycled) // 10 + 1)
        members = ops.members(cluster, len(centres))
        weights = torch.cat([ops.one_hot(kept, len(tokens)), members.new_zeros(len(centres), len(tokens))])
        weights[len(kept) :, recycled] = members / members.sum(1, keepdim=True)
        return Reduction(torch.cat([kept, recycled[centres]]), weights)


def density_peaks(features: Float[Tensor, "N C"], count: int) -> tuple[Int[Tensor, "K"], Int[Tensor, "N"]]:
    """Cluster by density peaks (DPC-kNN): `count` centres, and the cluster of each token.

    A centre is dense (near its `count` nearest) and far from any that is denser. Of two that are equally
    dense, as the two nearest always are where there are two clusters, the first counts as denser; the
    official code breaks such ties by tiny noise.
    """
    distance = torch.cdist(features, features) / math.sqrt(features.shape[1])
    density = (-distance.topk(count, largest=False).values.square().mean(1)).exp()
    rank = ops.ranks(density)
    denser = rank < rank[:, None]
    apart = distance.masked_fill(~denser, float("inf")).amin(1)
    apart = torch.where(apart.isinf(), distance.max(), apart)
    centres = ops.top(apart * density, count)
    cluster = distance[:, centres].argmin(1)
    cluster[centres] = torch.arange(count, device=cluster.device)
    return centres, cluster
