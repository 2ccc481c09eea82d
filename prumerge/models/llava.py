"""LLaVA 1.5 and its kin: a CLIP, SigLIP or DINOv2 tower, an MLP projector, any language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prumerge.models._delivery import project_each
from prumerge.models._family import Family
from prumerge.models._pictures import pictures
from prumerge.models._towers import LLAVA_INPUTS, run_tower
from prumerge.models._vision import Merging
from prumerge.tokens import VisualTokens

INPUTS = ("pixel_values", *LLAVA_INPUTS, "image_sizes")


def encode(base: Any, inputs: Mapping[str, Any], merging: Merging | None = None) -> list[VisualTokens]:
    """The visual tokens of each picture: the penultimate layer's output, q and k of the last layer."""
    pixels = inputs["pixel_values"]
    rows, columns = (length // base.config.vision_config.patch_size for length in pixels.shape[-2:])
    encoded = run_tower(base.vision_tower, base.config, inputs, pixels, merging=merging, registers=True)
    return pictures(encoded, rows, columns)


def project(base: Any, features: list[Tensor]) -> list[Tensor]:
    """All pictures through the projector at once."""
    return project_each(base.multi_modal_projector, features)


FAMILY = Family(
    takes="pictures",
    attention="class token, or with SigLIP the mean over patches",
    reduced="before the projector",
    inputs=INPUTS,
    encode=encode,
    project=project,
    merges=True,
)
