"""InstructBLIP: a Q-Former that reads the instruction; its 32 tokens are what is reduced."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from prumerge.models import _qformer
from prumerge.models._family import Family
from prumerge.models._qformer import project
from prumerge.models._weights import device_of, within_call
from prumerge.tokens import VisualTokens


def encode(base: Any, inputs: Mapping[str, Any]) -> list[VisualTokens]:
    """The Q-Former's tokens of each picture."""
    look = partial(
        base.get_image_features,
        inputs["pixel_values"].to(device_of(base)),
        qformer_input_ids=inputs["qformer_input_ids"],
        qformer_attention_mask=inputs.get("qformer_attention_mask"),
        interpolate_pos_encoding=inputs.get("interpolate_pos_encoding") or False,
        output_hidden_states=True,
        return_dict=True,
    )
    return _qformer.scored(base, within_call(base, look).qformer_outputs)


def deliver(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """As in BLIP-2, with one word of instruction."""
    _qformer.deliver(base, prompt, features, modality)
    prompt["qformer_input_ids"] = prompt["input_ids"][:1, :1]


FAMILY = Family(
    takes="pictures",
    attention="mean over the Q-Former's queries",
    reduced="behind the Q-Former",
    inputs=("pixel_values", "qformer_input_ids", "qformer_attention_mask", "interpolate_pos_encoding"),
    encode=encode,
    project=project,
    projector=("language_projection",),
    deliver=deliver,
    reads_text=True,
    hands_embeddings=True,
)
