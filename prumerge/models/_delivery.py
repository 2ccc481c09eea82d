"""Ways to hand projected features over to a model: what `Family.deliver` puts into a prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling


def as_list(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """One tensor [M_i, H] for each picture, which may keep different numbers of tokens."""
    prompt["mm_encoder_outputs"] = {modality: BaseModelOutputWithPooling(pooler_output=features)}


def as_tensor(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """One tensor [T, 1, H], for models that want one: every token is a picture of its own, so that pictures
    may keep different numbers of tokens and beam search still finds where a row's tokens end."""
    prompt["mm_encoder_outputs"] = {
        modality: BaseModelOutputWithPooling(pooler_output=torch.cat(features)[:, None])
    }
