"""Video-LLaVA: a tower for pictures and one for videos, an MLP projector.

The language model reads the class token of every frame, so 8 frames of 224 pixels are 8 x 257 = 2056 tokens;
the PruMerge paper counts the 8 x 256 = 2048 patches. Class tokens are separators here: methods see patches
only, and class tokens stay unless they are dropped (`separators="drop"`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from prumerge.errors import PrumergeError
from prumerge.models._delivery import as_tensor
from prumerge.models._family import Family
from prumerge.models._pictures import pictures, side
from prumerge.models._towers import LLAVA_INPUTS, run_tower
from prumerge.models.llava import project
from prumerge.tokens import Separators, VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture, or of each video frame by frame."""
    videos, length = inputs.get("pixel_values_videos"), side(base.config)
    if videos is None:
        encoded = run_tower(base.image_tower, base.config, inputs, inputs["pixel_values"])
        return pictures(encoded, length, length)
    frames, each = videos.shape[1], length**2
    if (most := base.config.video_seq_length // (1 + each)) < frames:
        raise PrumergeError(f"this model takes videos of {most} frames, not of {frames}; take fewer frames")
    encoded = run_tower(base.video_tower, base.config, inputs, videos.flatten(0, 1), strategy="default")
    frame = torch.arange(frames)
    return [
        video
        for one in encoded.split([frames] * len(videos))
        for video in pictures(
            one,
            length,
            length,
            frames=frames,
            placed=torch.arange(frames * each) + frame.repeat_interleave(each) + 1,
            separators=Separators(frame * (1 + each), one.features[:, 0], frame.repeat_interleave(each)),
        )
    ]


FAMILY = Family(
    takes="pictures, videos",
    attention="class token of each frame",
    reduced="before the projector",
    inputs=("pixel_values", "pixel_values_videos", *LLAVA_INPUTS),
    since="5.21",
    encode=encode,
    project=project,
    deliver=as_tensor,
)
