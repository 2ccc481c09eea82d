"""LLaVA-NeXT (1.6): the whole picture and tiles of it, with a newline after each row.

Features come from behind the projector, since that is where the model unpads and packs its tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models._tiles import stacked, tiled, tiles_of
from prumerge.models._towers import LLAVA_INPUTS, run_tower
from prumerge.tokens import VisualTokens

INPUTS = ("pixel_values", "image_sizes", *LLAVA_INPUTS)


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture, tile by tile; newlines are separators."""
    config, sizes = base.config, inputs["image_sizes"]
    counts = tiles_of(config, sizes)
    pixels = stacked(inputs["pixel_values"], counts)
    encoded = run_tower(base.vision_tower, config, inputs, pixels)
    strategy = config.vision_feature_select_strategy
    pack = partial(base.pack_image_features, vision_feature_select_strategy=strategy)
    return tiled(encoded, counts, sizes, base, pack)


FAMILY = Family(
    takes="pictures",
    attention="class token of each tile",
    reduced="behind the projector",
    inputs=INPUTS,
    encode=encode,
    project=as_they_are,
)
