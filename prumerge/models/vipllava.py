"""ViP-LLaVA: LLaVA whose projector reads several layers of the tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prumerge.models._delivery import as_tensor
from prumerge.models._family import Family
from prumerge.models._pictures import pictures, side
from prumerge.models._towers import run_tower
from prumerge.models.llava import project
from prumerge.tokens import VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture: the chosen layers side by side, q and k of the last that is read."""
    pixels, length = inputs["pixel_values"], side(base.config)
    encoded = run_tower(base.vision_tower, base.config, inputs, pixels, strategy="default")
    return pictures(encoded, length, length)


FAMILY = Family(
    takes="pictures",
    attention="class token",
    reduced="before the projector",
    inputs=("pixel_values", "vision_feature_layer"),
    since="5.23",
    encode=encode,
    project=project,
    deliver=as_tensor,
)
