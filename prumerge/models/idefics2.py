"""Idefics2: a Perceiver resampler makes 64 tokens of any picture; they are what is reduced.

These tokens have no place in the picture, so their grid is one row, and the resampler gives no attention
among them: their own similarity stands in for keys and queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import pictures
from prumerge.models._vision import Encoded
from prumerge.models._weights import device_of
from prumerge.tokens import VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The resampler's tokens of each picture (or tile)."""
    pixels, mask = inputs["pixel_values"], inputs.get("pixel_attention_mask")
    found = base.get_image_features(pixels.to(device_of(base)), mask, return_dict=True).pooler_output
    count = base.connector.perceiver_resampler.n_latents
    tokens = torch.cat(list(found)).unflatten(0, (-1, count))
    return pictures(Encoded(tokens, tokens, tokens, heads=1, class_token=False), 1, count)


FAMILY = Family(
    takes="pictures",
    attention="similarity of the resampler's tokens",
    reduced="behind the resampler",
    inputs=("pixel_values", "pixel_attention_mask"),
    since="5.21",
    encode=encode,
    project=as_they_are,
    projector=("connector",),
)
