"""Qwen3-VL: as Qwen2-VL, and features of earlier layers that the language model adds to its first layers.

These (deepstack) stand beside the features, so a method prunes and merges all of them alike.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models._qwen import INPUTS, encode, positions


def deliver(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """The features, and those for the first layers of the language model."""
    width = base.config.text_config.hidden_size
    tokens, *levels = zip(*(one.split(width, dim=-1) for one in features), strict=True)
    output = BaseModelOutputWithDeepstackFeatures(
        pooler_output=list(tokens), deepstack_features=[list(level) for level in levels]
    )
    prompt["mm_encoder_outputs"] = {modality: output}


FAMILY = Family(
    takes="pictures, videos",
    attention="mean over the patches of a frame",
    reduced="behind the merger",
    inputs=INPUTS,
    encode=encode,
    project=as_they_are,
    projector=("visual.merger", "visual.deepstack_merger_list"),
    deliver=deliver,
    positions=positions,
)
