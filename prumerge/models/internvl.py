"""InternVL: tiles of 448 pixels, each a picture here; 2 x 2 patches make a token (pixel shuffle).

Features come from behind the projector, whose input is four patches wide. A video is its frames' pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from prumerge.errors import PrumergeError
from prumerge.models._delivery import as_tensor, as_they_are
from prumerge.models._family import Family
from prumerge.models._pictures import blocks, pictures
from prumerge.models._towers import LLAVA_INPUTS, run_model
from prumerge.models._vision import Encoded
from prumerge.models._weights import device_of, within_call
from prumerge.tokens import VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The visual tokens of each tile: class attention in the layer that reads the features."""
    tower, config = base.vision_tower, base.config
    layer, strategy = (inputs.get(name) or getattr(config, name) for name in LLAVA_INPUTS)
    if strategy != "default":
        raise PrumergeError(
            f"vision_feature_select_strategy={strategy!r} does not fit this tower; it must be 'default'"
        )
    depth = len(tower.encoder.layer)
    wanted = layer % (depth + 1)
    scoring = min(wanted, depth - 1)
    output, hidden = run_model(
        base.get_image_features,
        inputs["pixel_values"].to(device_of(base)),
        vision_feature_layer=layer,
        layers=[wanted, scoring],
    )
    block = tower.encoder.layer[scoring]
    attention = block.attention

    def compute(hidden: Tensor) -> tuple[Tensor, Tensor]:
        read = block.layernorm_before(hidden)
        queries = attention.q_norm(attention.q_proj(read[:, :1]))
        return queries, attention.k_norm(attention.k_proj(read))

    queries, keys = within_call(block, compute, hidden[scoring])
    encoded = Encoded(hidden[scoring], queries, keys, attention.num_heads, class_token=True)
    tokens, size = output.pooler_output, round(1 / config.downsample_ratio)
    side = math.isqrt(tokens.shape[1])
    pool = partial(blocks, columns=side * size, size=size)
    return pictures(encoded, side, side, behind=tokens, pool=pool)


FAMILY = Family(
    takes="pictures",
    attention="class token",
    reduced="behind the projector",
    inputs=("pixel_values", *LLAVA_INPUTS),
    since="5.23",
    encode=encode,
    project=as_they_are,
    deliver=as_tensor,
)
