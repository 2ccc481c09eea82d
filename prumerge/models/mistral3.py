"""Mistral 3: Pixtral at any size; 2 x 2 patches make a token; a break token (text) ends each row.

Features come from behind the projector, which merges patches. Break tokens all stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import blocks
from prumerge.models._towers import run_model, scored
from prumerge.models._weights import device_of
from prumerge.tokens import VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture; keys and queries are those without rotary positions."""
    tower, config, sizes = base.vision_tower, base.config, inputs["image_sizes"]
    given = inputs.get("vision_feature_layer")
    layers = config.vision_feature_layer if given is None else given
    depth = len(tower.transformer.layers)
    wanted = [layer % (depth + 1) for layer in ([layers] if isinstance(layers, int) else layers)]
    scoring = min(max(wanted), depth - 1)
    output, hidden = run_model(
        base.get_image_features,
        inputs["pixel_values"].to(device_of(base)),
        sizes,
        vision_feature_layer=layers,
        layers=[*wanted, scoring],
    )
    layer = tower.transformer.layers[scoring]
    encoded = scored(hidden[scoring], layer, layer.attention_norm, layer.attention, layer.attention.num_heads)
    patch, size = tower.patch_size, config.spatial_merge_size
    grids = [(int(height) // patch, int(width) // patch) for height, width in sizes]
    counts = [rows * columns for rows, columns in grids]
    keys, queries = encoded.keys[0].split(counts), encoded.queries[0].split(counts)
    return [
        VisualTokens(
            features=tokens,
            grid=(1, rows // size, columns // size),
            keys=blocks(key, columns, size),
            queries=blocks(query, columns, size),
            heads=encoded.heads,
            placed=torch.arange(len(tokens)),  # rows are told apart by the breaks between them
        )
        for tokens, key, query, (rows, columns) in zip(
            output.pooler_output, keys, queries, grids, strict=True
        )
    ]


FAMILY = Family(
    takes="pictures",
    attention="mean over the patches",
    reduced="behind the projector",
    inputs=("pixel_values", "image_sizes", "vision_feature_layer"),
    encode=encode,
    project=as_they_are,
)
