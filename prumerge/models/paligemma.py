"""PaliGemma: SigLIP and one linear layer; the prompt before the answer sees itself both ways.

Features come from behind the projector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prumerge.models._shared import as_tensor as deliver
from prumerge.models._shared import as_they_are as project
from prumerge.models._shared import pictures, side, siglip
from prumerge.tokens import VisualTokens

__all__ = ["ENCODER_INPUTS", "deliver", "encode", "project"]

TAKES = "pictures"
ATTENTION = "mean over the patches"
REDUCED = "behind the projector"
ENCODER_INPUTS = ("pixel_values",)


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture."""
    output, encoded = siglip(base, base.vision_tower, inputs["pixel_values"].to(base.device))
    length = side(base.config)
    return pictures(encoded, length, length, behind=output.pooler_output)
