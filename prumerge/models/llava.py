"""LLaVA 1.5 and its kin: a CLIP (or SigLIP) tower, an MLP projector, any language model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from prumerge.tokens import Layer, Scores, VisualTokens
from prumerge.vision import encode as encode_pictures

ENCODER_INPUTS = ("pixel_values", "vision_feature_layer", "vision_feature_select_strategy", "image_sizes")


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture: the penultimate layer's output, q and k of the last layer."""
    tower, config = base.vision_tower, base.config
    layers, strategy = (
        given if (given := inputs.get(name)) is not None else getattr(config, name)
        for name in ("vision_feature_layer", "vision_feature_select_strategy")
    )
    pixels = inputs["pixel_values"]
    encoded = encode_pictures(tower, pixels.to(tower.device), layers)
    if (strategy == "default") != encoded.class_token:
        raise ValueError(
            f"vision_feature_select_strategy={strategy!r} does not fit this vision tower: "
            "'default' drops the class token, 'full' is for towers without one"
        )
    rows, columns = (side // config.vision_config.patch_size for side in pixels.shape[-2:])
    patches = slice(1, None) if encoded.class_token else slice(None)
    scores_of = cache(encoded.scores_of)  # of all pictures at once

    def scores(number: int, layer: Layer) -> Scores:
        queries, keys = (both[number] for both in scores_of(layer))
        return queries, keys[patches], keys[0] if encoded.class_token else None

    return [
        VisualTokens(
            features=features[patches],
            grid=(1, rows, columns),
            keys=keys[patches],
            queries=queries,
            heads=encoded.heads,
            class_key=keys[0] if encoded.class_token else None,
            class_feature=features[0] if encoded.class_token else None,
            elsewhere=partial(scores, number),
        )
        for number, (features, keys, queries) in enumerate(
            zip(encoded.features, encoded.keys, encoded.queries, strict=True)
        )
    ]


def project(base: Any, features: list[Tensor]) -> list[Tensor]:
    """All pictures through the projector at once, whatever their counts."""
    projector = base.multi_modal_projector
    projected = projector(torch.cat(features).to(next(projector.parameters()).device))
    return list(projected.split([len(one) for one in features]))
