"""What several families share: pictures from encoded batches, tiles, towers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
)

from prumerge.errors import PrumergeError
from prumerge.models._vision import Encoded, Merging
from prumerge.models._vision import encode as encode_pictures
from prumerge.scores import Layer, Scores
from prumerge.tokens import Merged, Separators, VisualTokens

LLAVA_INPUTS = ("vision_feature_layer", "vision_feature_select_strategy")


def run_tower(
    tower: Any,
    config: Any,
    inputs: Mapping[str, Any],
    pixels: Float[Tensor, "B 3 H W"],
    strategy: str | None = None,
    *,
    merging: Merging | None = None,
) -> Encoded:
    """A LLaVA model's tower as far as its configuration reads it, or as the call says instead; on the way
    patches are merged by `merging`.

    Raises ValueError for a strategy that does not fit the tower.
    """
    layers: Any
    layers, asked = (
        given if (given := inputs.get(name)) is not None else getattr(config, name, None)
        for name in LLAVA_INPUTS
    )
    strategy = strategy or asked
    encoded = encode_pictures(tower, pixels.to(tower.device), layers, merging)
    if (strategy == "default") != encoded.class_token:
        raise PrumergeError(
            f"vision_feature_select_strategy={strategy!r} does not fit this vision tower: "
            "'default' drops the class token, 'full' is for towers without one"
        )
    return encoded


def side(config: Any) -> int:
    """Patches along one side of a square picture in the tower."""
    return config.vision_config.image_size // config.vision_config.patch_size


def pictures(
    encoded: Encoded,
    rows: int,
    columns: int,
    *,
    frames: int = 1,
    behind: Float[Tensor, "B N H"] | None = None,
    pool: Callable[[Tensor], Tensor] = lambda patches: patches,
    **more: Any,
) -> list[VisualTokens]:
    """Each `frames` pictures of a batch as one picture or video.

    Features are the tower's output, or what comes from behind the projector of families that reduce there;
    `pool` makes keys and queries of patches those of tokens, where a token is made of several patches. Where
    the tower has merged patches (only with `frames=1` and features before the projector), tokens are a row.
    """
    batch = encoded.features
    features = batch[:, encoded.first :] if behind is None else behind

    def scores(queries: Tensor, keys: Tensor, here: slice) -> Scores:
        own = keys[here.start if frames == 1 else here, 0] if encoded.class_token else None
        asking = queries[here] if encoded.class_token else pool(queries[here])
        return Scores(
            queries=asking.flatten(0, 1),
            keys=pool(keys[here, encoded.first :]).flatten(0, 1),
            heads=encoded.heads,
            class_key=own,
        )

    of = None if encoded.scores_of is None else cache(encoded.scores_of)  # of all pictures at once

    def elsewhere(here: slice, layer: Layer) -> Scores:
        assert of is not None
        return scores(*of(layer), here)

    found = []
    for start in range(0, len(batch), frames):
        here = slice(start, start + frames)
        place = start if frames == 1 else here
        own = scores(encoded.queries, encoded.keys, here)
        # Behind a projector there is no class token of the same kind.
        class_feature = batch[place, 0] if encoded.class_token and behind is None else None
        grid, merged = (frames, rows, columns), None
        if encoded.source is not None:
            merged = Merged(grid, encoded.source[start])
            grid = (1, 1, batch.shape[1] - encoded.first)
        found.append(
            VisualTokens(
                **vars(own),
                features=features[here].flatten(0, 1),
                grid=grid,
                class_feature=class_feature,
                elsewhere=partial(elsewhere, here) if of else None,
                sizes=None if encoded.sizes is None else encoded.sizes[start, encoded.first :],
                merged=merged,
                **more,
            )
        )
    return found


def blocks(patches: Float[Tensor, "*batch S D"], columns: int, size: int) -> Float[Tensor, "*batch N D"]:
    """The mean over each block of size x size patches: what a token knows that a family makes of a block."""
    grid = patches.unflatten(-2, (-1, size, columns // size, size))
    return grid.mean(dim=(-4, -2)).flatten(-3, -2)


def project_each(projector: Any, features: list[Tensor]) -> list[Tensor]:
    """All pictures through a projector at once, whatever their counts."""
    weight = next(projector.parameters())
    return list(projector(torch.cat(features).to(weight.device)).split([len(one) for one in features]))


def as_they_are(_: Any, features: list[Tensor]) -> list[Tensor]:
    """`project` of families whose projector also packs, so that their features come from behind it."""
    return features


# Large pictures in tiles


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
    config, newline = base.config, base.image_newline
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
    marks = [_coordinates(count, size, config) for count, size in zip(counts, image_sizes, strict=True)]
    layout, _ = pack(marks, image_sizes, image_newline=torch.zeros(3))
    tiles = encoded.split(list(counts))
    if class_features is None:
        class_tokens: Sequence[Tensor | None] = [None] * len(tiles)
    else:
        class_tokens = class_features.split(list(counts))
    each = zip(packed, layout, tiles, class_tokens, strict=True)
    return [_picture(*one, width, config) for one in each]


def _coordinates(count: int, size: Any, config: Any) -> Float[Tensor, "tiles S 3"]:
    """For each patch 1, and the row and column of its tile in the large picture."""
    marks = torch.ones(count, side(config) ** 2, 3)
    if count > 1:
        _, columns = get_anyres_image_grid_shape(
            size, config.image_grid_pinpoints, config.vision_config.image_size
        )
        number = torch.arange(count - 1)
        marks[1:, :, 1] = (number // columns)[:, None].float()
        marks[1:, :, 2] = (number % columns)[:, None].float()
    return marks


def _picture(
    packed: Float[Tensor, "P channels"],
    marks: Float[Tensor, "P 3"],
    encoded: Encoded,
    class_feature: Float[Tensor, "tiles H"] | None,
    width: int,
    config: Any,
) -> VisualTokens:
    newline = marks[:, 0] < 0.5
    places = (~newline).nonzero()[:, 0]
    row = newline.cumsum(0)[places]
    number = marks[places, 1:].round().long()
    whole = len(encoded.features) > 1  # the picture as a whole comes first, then its tiles
    tile = number[:, 0] * (int(number[:, 1].max()) + 1) + number[:, 1] + 1
    if whole:
        first = side(config) ** 2
        tile[:first], row[:first] = 0, -1
    order = tile.argsort(stable=True)
    used, sizes = tile.unique(return_counts=True)
    high = [side(config) if not one else len(row[tile == one].unique()) for one in used.tolist()]
    if not whole:
        used, high = used * 0, [side(config)]
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


# Towers that the model itself runs, with the input of one layer kept


def run_model(
    look: Callable[..., Any], *pixels: Any, layers: Sequence[int], **inputs: Any
) -> tuple[Any, dict[int, Tensor]]:
    """The model's own `get_image_features`, and the hidden states with these (non-negative) numbers."""
    output = look(*pixels, **inputs, output_hidden_states=list(layers), return_dict=True)
    return output, {layer: output.hidden_states[layer] for layer in layers}


def scored(
    hidden: Float[Tensor, "B S C"], norm: Any, attention: Any, heads: int, *, class_token: bool = False
) -> Encoded:
    """A layer's input with the keys and queries that the layer makes of it."""
    read = norm(hidden)
    queries = attention.q_proj(read[:, :1] if class_token else read)
    return Encoded(hidden, queries, attention.k_proj(read), heads, class_token)


def siglip(base: Any, tower: Any, *pixels: Any, **inputs: Any) -> tuple[Any, Encoded]:
    """A family that reads the last output of a tower laid out as SigLIP's."""
    last = len(tower.encoder.layers) - 1
    output, hidden = run_model(base.get_image_features, *pixels, layers=[last], **inputs)
    layer = tower.encoder.layers[last]
    return output, scored(hidden[last], layer.layer_norm1, layer.self_attn, tower.config.num_attention_heads)
