"""LLaVA-OneVision: one picture in tiles, several pictures whole, or a video with 2 x 2 pooled frames.

Features come from behind the projector, since that is where the model shrinks, pools and packs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prumerge.models._delivery import as_list, as_tensor, as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import pictures, side
from prumerge.models._tiles import stacked, tiled, tiles_of
from prumerge.models._towers import LLAVA_INPUTS, run_tower
from prumerge.models._weights import weight_of
from prumerge.tokens import Separators, VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture or video; newlines are separators."""
    if inputs.get("pixel_values_videos") is not None:
        return _videos(base, inputs)
    config, sizes, together = base.config, inputs["image_sizes"], inputs.get("batch_num_images")
    alone = None if together is None else [int(count) == 1 for count in together for _ in range(int(count))]
    counts = tiles_of(config, sizes, alone)
    encoded = run_tower(base.vision_tower, config, inputs, stacked(inputs["pixel_values"], counts))
    aspect = inputs.get("vision_aspect_ratio") or config.vision_aspect_ratio
    pack = partial(base.pack_image_features, vision_aspect_ratio=aspect)
    return tiled(encoded, counts, sizes, base, pack)


def _videos(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """Each video's frames, pooled as the model pools them, and the newline that ends it."""
    videos = inputs["pixel_values_videos"]
    encoded = run_tower(base.vision_tower, base.config, inputs, videos.flatten(0, 1))
    pooled = base.apply_pooling(base.multi_modal_projector(encoded.features[:, encoded.first :]))
    frames, length = videos.shape[1], math.ceil(side(base.config) / 2)
    count = frames * length**2
    newline = Separators(
        at=torch.tensor([count]),
        features=weight_of(base, "image_newline")[None].to(pooled),
        of=torch.zeros(count, dtype=torch.long),
    )
    return pictures(
        encoded,
        length,
        length,
        frames=frames,
        behind=pooled,
        pool=base.apply_pooling,
        placed=torch.arange(count),
        separators=newline,
    )


def deliver(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """Pictures as a list; videos as one tensor."""
    (as_list if modality == "image" else as_tensor)(base, prompt, features, modality)


FAMILY = Family(
    takes="pictures, videos",
    attention="mean over the patches of a tile or frame",
    reduced="behind the projector",
    inputs=(
        "pixel_values",
        "image_sizes",
        "pixel_values_videos",
        "image_sizes_videos",
        "batch_num_images",
        "vision_aspect_ratio",
        *LLAVA_INPUTS,
    ),
    encode=encode,
    project=as_they_are,
    deliver=deliver,
)
