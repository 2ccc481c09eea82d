"""Which visual tokens the reader of hard scenes is shown, for whole batches on any device.

The recipe is that of `learn_language`: from evenly strewn to gathered, or alike, and in half of the pictures
merged with similar ones, with near ones, or with any. No token is likelier to be kept for showing an object.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from prumerge.tiny.learn_language import ABSORBED, ALIKE, OTHERS
from prumerge.tiny.scenes import GRID

PATCHES = GRID * GRID


def strewn(pictures: int, device: torch.device) -> Int[Tensor, "pictures 576"]:
    """All places of each picture in any order."""
    return torch.rand(pictures, PATCHES, device=device).argsort(1)


def ordered(features: Float[Tensor, "pictures 576 width"]) -> Int[Tensor, "pictures 576"]:
    """All places of each picture, so that the first so many are gathered, strewn or alike."""
    pictures, device = len(features), features.device
    alike = torch.rand(pictures, 1, device=device) < ALIKE
    kind = torch.randint(3, (pictures, 1), device=device)
    by_likeness = torch.where(kind == 0, near_one(features), along(features, kind == 1))
    return torch.where(alike, by_likeness, gathered(pictures, device))


def gathered(pictures: int, device: torch.device) -> Int[Tensor, "pictures 576"]:
    """From evenly strewn to gathered in a few spots of four by four patches."""
    spots = torch.randn(pictures, 49, device=device)
    rows, columns = torch.arange(PATCHES, device=device) // GRID, torch.arange(PATCHES, device=device) % GRID
    shift = torch.randint(4, (2, pictures, 1), device=device)
    spot = (rows + shift[0]) // 4 * 7 + (columns + shift[1]) // 4
    kind = torch.randint(3, (pictures, 1), device=device)
    scale = torch.where(kind == 0, 0.2, torch.where(kind == 1, 1.0, 100.0))
    return (spots.gather(1, spot) + scale * torch.randn(pictures, PATCHES, device=device)).argsort(1)


def near_one(features: Float[Tensor, "pictures 576 width"]) -> Int[Tensor, "pictures 576"]:
    """Those nearest to any one of them first."""
    unit = F.normalize(features, dim=-1)
    which = torch.randint(PATCHES, (len(unit), 1, 1), device=unit.device)
    middle = unit.gather(1, which.expand(-1, 1, unit.shape[-1]))
    return (unit * middle).sum(-1).argsort(1, descending=True)


def along(features: Float[Tensor, "pictures 576 width"], principal: Tensor) -> Int[Tensor, "pictures 576"]:
    """In their order along the first principal component, or any direction, from any of them on."""
    around = features - features.mean(1, keepdim=True)
    direction = anywhere = torch.randn(len(features), features.shape[-1], 1, device=features.device)
    for _ in range(4):  # power iteration
        direction = F.normalize(around.transpose(1, 2) @ (around @ direction), dim=1)
    direction = torch.where(principal[..., None], direction, anywhere)
    order = (around @ direction)[..., 0].argsort(1)
    first = torch.randint(PATCHES, (len(order), 1), device=order.device)
    return order.gather(1, (torch.arange(PATCHES, device=order.device) + first) % PATCHES)


def shown(
    features: Float[Tensor, "pictures 576 width"],
    order: Int[Tensor, "pictures 576"],
    count: int,
    merging: bool,
) -> tuple[Float[Tensor, "pictures count width"], Int[Tensor, "pictures count"]]:
    """The first `count` tokens of an order, sorted by place, some merged with others; and their places."""
    places = order[:, :count].sort(1).values
    own = taken(features, places)
    left = order[:, count:]
    if not merging or left.shape[1] < ABSORBED:
        return own, places
    some = left[:, torch.randperm(left.shape[1], device=left.device)[:OTHERS]]
    return merged(own, places, taken(features, some), some), places


def merged(
    own: Float[Tensor, "pictures count width"],
    places: Int[Tensor, "pictures count"],
    others: Float[Tensor, "pictures others width"],
    where: Int[Tensor, "pictures others"],
) -> Float[Tensor, "pictures count width"]:
    """In half of the pictures some tokens absorb others: `learn_language.merged` for all at once."""
    pictures, count, device = len(own), own.shape[1], own.device
    kind = torch.randint(6, (pictures, 1, 1), device=device)  # 0 similar, 1 near, 2 mixed, else none
    similar = F.normalize(own, dim=-1) @ F.normalize(others, dim=-1).transpose(1, 2)
    away = (places[:, :, None] // GRID - where[:, None] // GRID).abs()
    away = away + (places[:, :, None] % GRID - where[:, None] % GRID).abs()
    closeness = torch.where(
        kind == 0, similar, torch.where(kind == 1, -away.float(), torch.rand_like(similar))
    )
    which = closeness.topk(ABSORBED, dim=-1).indices
    share = torch.empty(which.shape, device=device).exponential_()
    share = share / share.sum(-1, keepdim=True)
    weights = torch.zeros_like(similar).scatter_(2, which, share)
    absorbed = weights @ others
    half = torch.rand(pictures, count, 1, device=device) < 0.5
    absorbed = torch.where((kind == 2) & ~half, others.mean(1, keepdim=True), absorbed)
    scale, summed, chosen = torch.rand(3, pictures, count, 1, device=device)
    mixture = torch.where(summed < 0.5, own + scale * absorbed, own + 0.9 * scale * (absorbed - own))
    mixture = torch.where((kind == 2) & (summed >= 0.5), scale * absorbed, mixture)
    most = torch.where(kind == 2, 0.15, 1.0) * torch.rand(pictures, 1, 1, device=device)
    return torch.where((kind < 3) & (chosen < most), mixture, own)


def taken(features: Float[Tensor, "pictures 576 width"], places: Int[Tensor, "pictures some"]) -> Tensor:
    return features.gather(1, places[..., None].expand(-1, -1, features.shape[-1]))
