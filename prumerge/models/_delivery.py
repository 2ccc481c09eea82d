"""From reduced features to a model: ways to project them, and to put them into a prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prumerge.models._weights import device_of


def project_each(projector: Any, features: list[Tensor]) -> list[Tensor]:
    """All pictures through a projector at once, whatever their counts."""
    together = torch.cat(features).to(device_of(projector))
    return list(projector(together).split([len(one) for one in features]))


def as_they_are(_: Any, features: list[Tensor]) -> list[Tensor]:
    """`project` of families whose projector also packs, so that their features come from behind it."""
    return features


def as_list(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """One tensor [M_i, H] for each picture, which may keep different numbers of tokens."""
    prompt["mm_encoder_outputs"] = {modality: BaseModelOutputWithPooling(pooler_output=features)}


def as_tensor(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """One tensor [T, 1, H], for models that want one: every token is a picture of its own, so that pictures
    may keep different numbers of tokens and beam search still finds where a row's tokens end."""
    prompt["mm_encoder_outputs"] = {
        modality: BaseModelOutputWithPooling(pooler_output=torch.cat(features)[:, None])
    }
