"""Masks for the layers of a language model: causal ones for rows that were cut, and what sizes add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from transformers.masking_utils import create_causal_mask

from prumerge.errors import PrumergeError
from prumerge.layers.layout import Layout


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


def biased(
    config: Any, hidden: Tensor, mask: Tensor | None, bias: Float[Tensor, "B S"], seen: int
) -> Float[Tensor, "B _ Q K"]:
    """A layer's mask with `bias` on the logits of its first S keys, those of the prompt.

    Raises ValueError for attention that takes no such mask.
    """
    if config._attn_implementation not in ("sdpa", "eager"):
        raise PrumergeError(
            f"{config._attn_implementation} takes no bias for the size of merged tokens; load the model with "
            "attn_implementation='sdpa', or leave out size_bias"
        )
    queries = hidden.shape[1]
    keys = seen + queries if mask is None else mask.shape[-1]
    added = pad(bias, (0, keys - bias.shape[1])).to(hidden)[:, None, None]
    if mask is None:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=hidden.device).tril(keys - queries)
    if mask.dtype == torch.bool:
        return torch.where(mask, added, torch.finfo(hidden.dtype).min)
    return mask + added


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
