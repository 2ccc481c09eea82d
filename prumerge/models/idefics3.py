"""Idefics3: tiles of a picture and the whole, each a picture here; blocks of patches make a token.

Features come from behind the connector, whose input is a block of patches wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import blocks, pictures
from prumerge.models._towers import siglip
from prumerge.models._weights import device_of
from prumerge.tokens import VisualTokens

INPUTS = ("pixel_values", "pixel_attention_mask")


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each tile (or frame); tiles that only fill up a batch are left out."""
    pixels, mask = inputs["pixel_values"], inputs.get("pixel_attention_mask")
    output, encoded = siglip(base, base.vision_model, pixels.to(device_of(base)), mask)
    size = base.connector.scale_factor
    length = math.isqrt(encoded.keys.shape[1]) // size
    tokens = torch.cat(list(output.pooler_output)).unflatten(0, (-1, length**2))
    pool = partial(blocks, columns=length * size, size=size)
    return pictures(encoded, length, length, behind=tokens, pool=pool)


FAMILY = Family(
    takes="pictures",
    attention="mean over the patches",
    reduced="behind the connector",
    inputs=INPUTS,
    since="5.21",
    encode=encode,
    project=as_they_are,
    projector=("connector",),
)
