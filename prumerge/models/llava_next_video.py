"""LLaVA-NeXT-Video: pictures as LLaVA-NeXT; of a video every frame, pooled 2 x 2.

Features come from behind the projector, as those of LLaVA-NeXT.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from prumerge.models import llava_next
from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import blocks, pictures, side
from prumerge.models._towers import run_tower
from prumerge.tokens import VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture or video."""
    videos = inputs.get("pixel_values_videos")
    if videos is None:
        return llava_next.encode(base, inputs)
    length, stride = side(base.config), base.config.spatial_pool_stride
    encoded = run_tower(base.vision_tower, base.config, inputs, videos.flatten(0, 1))
    pooled = base.multi_modal_projector(base.vision_resampler(encoded.features[:, encoded.first :]))
    pool = partial(blocks, columns=length, size=stride)
    rows = length // stride
    return pictures(encoded, rows, rows, frames=videos.shape[1], behind=pooled, pool=pool)


FAMILY = Family(
    takes="pictures, videos",
    attention="class token of each tile or frame",
    reduced="behind the projector",
    inputs=(*llava_next.INPUTS, "pixel_values_videos"),
    encode=encode,
    project=as_they_are,
)
