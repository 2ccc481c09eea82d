"""Causal masks for rows that were cut, in the form that the attention in use takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_causal_mask

from prumerge.layout import Layout


def causal(
    config: Any, hidden: Tensor, layout: Layout, mask: Tensor | None, length: int, seen: int
) -> Tensor | None:
    """The mask of the attention in use, for rows that are padded as `layout` says and go on.

    `mask` is the caller's for a prompt of `length` columns and what follows; the layer's cache holds `seen`.
    """
    later = seen + hidden.shape[1] - layout.valid.shape[1]
    padding = None
    if mask is not None or not layout.valid.all():
        after = (
            torch.ones(len(hidden), later, dtype=torch.bool, device=hidden.device)
            if mask is None
            else mask[:, length : length + later].bool()
        )
        padding = torch.cat([layout.valid.to(hidden.device), after], dim=1)
    return create_causal_mask(
        config=config, inputs_embeds=hidden, attention_mask=padding, past_key_values=_Seen(seen)
    )


@dataclass(frozen=True)
class _Seen:
    """As much of a cache as a mask is made by: how many tokens a layer has seen."""

    length: int
    is_compileable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.length + query_length, 0
