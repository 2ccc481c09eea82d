"""MobileVLM: CLIP, a projector that makes one token of 2 x 2 patches (LDP, LDPv2), and MobileLLaMA."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from prumerge.models._delivery import as_they_are as project
from prumerge.models._family import Family
from prumerge.models._pictures import blocks, pictures, side
from prumerge.models._towers import LLAVA_INPUTS, run_tower
from prumerge.tokens import VisualTokens

INPUTS = ("pixel_values", *LLAVA_INPUTS)


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """What the projector makes of each picture; a token has the mean of the keys of its 2 x 2 patches."""
    encoded = run_tower(base.vision_tower, base.config, inputs, inputs["pixel_values"])
    projected = base.multi_modal_projector(encoded.features[:, encoded.first :])
    length = side(base.config)
    pool = partial(blocks, columns=length, size=2)
    return pictures(encoded, length // 2, length // 2, behind=projected, pool=pool)


FAMILY = Family(
    takes="pictures",
    attention="class token",
    reduced="behind the projector",
    inputs=INPUTS,
    encoder=encode,
    project=project,
)
