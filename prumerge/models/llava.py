"""LLaVA 1.5 and its kin: a CLIP (or SigLIP) tower, an MLP projector, any language model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from prumerge.tokens import Layer, Merged, Scores, VisualTokens
from prumerge.vision import Merging
from prumerge.vision import encode as encode_pictures

ENCODER_INPUTS = ("pixel_values", "vision_feature_layer", "vision_feature_select_strategy", "image_sizes")


def encode(base: Any, inputs: Mapping[str, Any], merging: Merging | None = None) -> list[VisualTokens]:
    """The visual tokens of each picture: the penultimate layer's output, q and k of the last layer."""
    tower, config = base.vision_tower, base.config
    layers, strategy = (
        given if (given := inputs.get(name)) is not None else getattr(config, name)
        for name in ("vision_feature_layer", "vision_feature_select_strategy")
    )
    pixels = inputs["pixel_values"]
    encoded = encode_pictures(tower, pixels.to(tower.device), layers, merging)
    if (strategy == "default") != encoded.class_token:
        raise ValueError(
            f"vision_feature_select_strategy={strategy!r} does not fit this vision tower: "
            "'default' drops the class token, 'full' is for towers without one"
        )
    grid = (1, *(side // config.vision_config.patch_size for side in pixels.shape[-2:]))
    patches = slice(1, None) if encoded.class_token else slice(None)
    scores_of = None if encoded.scores_of is None else cache(encoded.scores_of)  # of all pictures at once

    def scores(number: int, layer: Layer) -> Scores:
        assert scores_of is not None
        queries, keys = (both[number] for both in scores_of(layer))
        return queries, keys[patches], keys[0] if encoded.class_token else None

    def tokens(picture: int) -> VisualTokens:
        features, keys = encoded.features[picture], encoded.keys[picture]
        source = None if encoded.source is None else encoded.source[picture]
        return VisualTokens(
            features=features[patches],
            grid=grid if source is None else (1, 1, len(features[patches])),
            keys=keys[patches],
            queries=encoded.queries[picture],
            heads=encoded.heads,
            class_key=keys[0] if encoded.class_token else None,
            class_feature=features[0] if encoded.class_token else None,
            elsewhere=None if scores_of is None else partial(scores, picture),
            sizes=None if encoded.sizes is None else encoded.sizes[picture, patches],
            merged=None if source is None else Merged(grid, source),
        )

    return [tokens(picture) for picture in range(len(pixels))]


def project(base: Any, features: list[Tensor]) -> list[Tensor]:
    """All pictures through the projector at once, whatever their counts."""
    projector = base.multi_modal_projector
    projected = projector(torch.cat(features).to(next(projector.parameters()).device))
    return list(projected.split([len(one) for one in features]))
