"""PaliGemma: SigLIP and one linear layer; the prompt before the answer sees itself both ways.

Features come from behind the projector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prumerge.models._delivery import as_tensor, as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import pictures, side
from prumerge.models._towers import siglip
from prumerge.models._weights import device_of
from prumerge.tokens import VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture."""
    output, encoded = siglip(base, base.vision_tower, inputs["pixel_values"].to(device_of(base)))
    length = side(base.config)
    return pictures(encoded, length, length, behind=output.pooler_output)


FAMILY = Family(
    takes="pictures",
    attention="mean over the patches",
    reduced="behind the projector",
    inputs=("pixel_values",),
    encode=encode,
    project=as_they_are,
    deliver=as_tensor,
)
