"""Large pictures in tiles (LLaVA-NeXT, LLaVA-OneVision): the whole picture, then its tiles, packed by the
model with a newline after each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
)

from prumerge.models._pictures import side
from prumerge.models._vision import Encoded
from prumerge.models._weights import weight_of
from prumerge.tokens import Separators, VisualTokens


def tiles_of(config: Any, image_sizes: Any, alone: Sequence[bool] | None = None) -> list[int]:
    """How many tiles each picture has; pictures that come with others (not `alone`) are not tiled."""
    return [
        image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size)
        if alone is None or alone[number]
        else 1
        for number, size in enumerate(image_sizes)
    ]


def stacked(pixels: Tensor, counts: Sequence[int]) -> Float[Tensor, "tiles 3 H W"]:
    """The tiles of all pictures one after the other, without those that only fill up."""
    if pixels.ndim == 4:
        return pixels
    return torch.cat([tiles[:count] for tiles, count in zip(pixels, counts, strict=True)])


def tiled(
    encoded: Encoded,
    counts: Sequence[int],
    image_sizes: Any,
    base: Any,
    pack: Callable[..., tuple[Sequence[Tensor], Any]],
) -> list[VisualTokens]:
    """Pictures of `counts` tiles each, packed by the model's own `pack(features, sizes, image_newline=)`.

    What is known of a patch (its keys, and its queries where there is no class token) is packed like its
    features, so that unpadding and shrinking keep them together. A picture's tokens come tile by tile; a
    newline ends each row of the picture.
    """
    config, newline = base.config, weight_of(base, "image_newline")
    projected = base.multi_modal_projector(encoded.features[:, encoded.first :])
    class_features = base.multi_modal_projector(encoded.features[:, 0]) if encoded.class_token else None
    width, per_patch = projected.shape[-1], [projected, encoded.keys[:, encoded.first :].to(projected.dtype)]
    if not encoded.class_token:
        per_patch.append(encoded.queries.to(projected.dtype))
    channels = torch.cat(per_patch, dim=-1)
    no_newline = newline.new_zeros(channels.shape[-1] - width)
    packed, _ = pack(
        channels.split(list(counts)), image_sizes, image_newline=torch.cat([newline, no_newline])
    )
    columns = [_columns(size, config) for size in image_sizes]
    marks = [_marks(count, across, config) for count, across in zip(counts, columns, strict=True)]
    layout, _ = pack(marks, image_sizes, image_newline=torch.zeros(3))
    tiles = encoded.split(list(counts))
    if class_features is None:
        class_tokens: Sequence[Tensor | None] = [None] * len(tiles)
    else:
        class_tokens = class_features.split(list(counts))
    each = zip(packed, layout, tiles, class_tokens, columns, strict=True)
    return [_picture(*one, width, config) for one in each]


def _columns(size: Any, config: Any) -> int:
    """How many tiles stand side by side in a picture of this height and width."""
    grid = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
    return int(grid[1])


def _marks(count: int, columns: int, config: Any) -> Float[Tensor, "tiles S 3"]:
    """For each patch 1, and the row and column of its tile in the large picture; 0 in the picture as a whole,
    which comes before its tiles.

    Rows and columns apart, so that a mark that the model shrinks, the mean of neighbours, is one of them.
    """
    marks = torch.zeros(count, side(config) ** 2, 3)
    tile = torch.arange(count - 1)
    marks[:, :, 0] = 1
    marks[1:, :, 1] = (tile // columns)[:, None].float()
    marks[1:, :, 2] = (tile % columns)[:, None].float()
    return marks


def _picture(
    packed: Float[Tensor, "P channels"],
    marks: Float[Tensor, "P 3"],
    encoded: Encoded,
    class_feature: Float[Tensor, "tiles H"] | None,
    columns: int,
    width: int,
    config: Any,
) -> VisualTokens:
    """One picture, tile by tile, of what the model packed row by row."""
    newline = marks[:, 0] < 0.5
    places = (~newline).nonzero()[:, 0]
    row = newline.cumsum(0)[places]
    down, right = marks[places, 1:].round().long().unbind(1)
    whole = len(encoded.features) > 1  # the picture as a whole comes first, then its tiles
    tile = down * columns + right + 1
    first = side(config) ** 2
    tile[:first] = 0
    if whole:
        row[:first] = -1
    order = tile.argsort(stable=True)
    used, sizes = tile.unique(return_counts=True)
    high = [side(config) if not one else len(row[tile == one].unique()) for one in used.tolist()]
    grids = [(rows, count // rows) for rows, count in zip(high, sizes.tolist(), strict=True)]
    placed = places[order]
    here = packed[placed.to(packed.device)]
    keys = encoded.keys.shape[-1]
    queries = encoded.queries[used.to(packed.device), 0] if encoded.class_token else here[:, width + keys :]
    class_tokens: dict[str, Any] = {}
    if class_feature is not None:
        several = used.to(packed.device) if whole else 0
        class_tokens = {"class_key": encoded.keys[several, 0], "class_feature": class_feature[several]}
    return VisualTokens(
        features=here[:, :width],
        grid=(1, 1, len(placed)) if whole else (1, *grids[0]),
        keys=here[:, width : width + keys],
        queries=queries,
        heads=encoded.heads,
        tiles=tuple(grids) if whole else (),
        placed=placed,
        separators=Separators(
            at=newline.nonzero()[:, 0],
            features=packed[newline.to(packed.device), :width],
            of=row[order],
        ),
        **class_tokens,
    )
