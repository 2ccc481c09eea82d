"""BLIP-2: a Q-Former's 32 tokens, which are what is reduced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from prumerge.models._family import Family
from prumerge.models._qformer import deliver, project, scored
from prumerge.models._weights import device_of, weight_of
from prumerge.tokens import VisualTokens

INPUTS = ("pixel_values", "interpolate_pos_encoding")


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The Q-Former's tokens of each picture."""
    seen = base.vision_model(
        inputs["pixel_values"].to(device_of(base)),
        interpolate_pos_encoding=inputs.get("interpolate_pos_encoding") or False,
        return_dict=True,
    ).last_hidden_state
    outputs = base.qformer(
        query_embeds=weight_of(base, "query_tokens").expand(len(seen), -1, -1),
        encoder_hidden_states=seen,
        encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        output_hidden_states=True,
        return_dict=True,
    )
    return scored(base, outputs)


FAMILY = Family(
    takes="pictures",
    attention="mean over the Q-Former's queries",
    reduced="behind the Q-Former",
    inputs=INPUTS,
    encode=encode,
    project=project,
    projector=("language_projection",),
    deliver=deliver,
    hands_embeddings=True,
)
