"""Gemma 3: SigLIP, whose patches are averaged in blocks and projected; pictures see themselves both ways.

Features come from behind the projector, which averages. The mask in which the tokens of a picture see each
other is made by the model from `token_type_ids`, which are cut as the prompt is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from prumerge.models._delivery import as_tensor, as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import blocks, pictures, side
from prumerge.models._towers import siglip
from prumerge.models._weights import device_of
from prumerge.tokens import VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each picture (or crop of one), q and k averaged as the features are."""
    output, encoded = siglip(base, base.vision_tower, inputs["pixel_values"].to(device_of(base)))
    projector = base.multi_modal_projector
    pool = partial(blocks, columns=side(base.config), size=projector.kernel_size)
    length = projector.tokens_per_side
    return pictures(encoded, length, length, behind=output.pooler_output, pool=pool)


FAMILY = Family(
    takes="pictures",
    attention="mean over the patches",
    reduced="behind the projector",
    inputs=("pixel_values",),
    encode=encode,
    project=as_they_are,
    deliver=as_tensor,
)
