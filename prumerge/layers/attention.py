"""The attention that visual tokens receive in a layer of a language model, from the few words that ask.

Computed from the layer's q and k for those rows alone, so that attention itself stays what it is (SDPA, flash
attention).
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prumerge.layers.layout import Pass


@torch.no_grad()
def received(
    layer: Any, hidden: Float[Tensor, "B S H"], rotary: tuple[Tensor, Tensor], now: Pass
) -> list[tuple[Float[Tensor, "_"], Float[Tensor, "_ D"]]]:
    """For each picture the attention its tokens receive (mean over heads, and over the words that ask by
    their shares), and their keys with all heads side by side."""
    attention, layout = layer.self_attn, now.layout(layer.self_attn.layer_idx)
    turn = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    cos, sin = (x.expand(len(hidden), -1, -1) for x in rotary)
    states = layer.input_layernorm(hidden)

    def heads(which: str, read: Tensor, cos: Tensor, sin: Tensor) -> Float[Tensor, "B heads S D"]:
        projected = getattr(attention, f"{which}_proj")(read)
        split = projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        norm = getattr(attention, f"{which}_norm", None) or getattr(attention, f"{which}_layernorm", None)
        split = split if norm is None else norm(split)
        turned, rest = split[..., : cos.shape[-1]], split[..., cos.shape[-1] :]  # Phi leaves a rest
        return torch.cat([turn(turned, turned, cos, sin)[0], rest], dim=-1)

    keys = heads("k", states, cos, sin)
    valid, place = layout.valid.to(hidden.device), torch.arange(hidden.shape[1], device=hidden.device)
    found = []
    for (row, columns), words, shares in zip(layout.pictures, now.asking, now.shares, strict=True):
        asking = torch.isin(layout.columns[row], words).nonzero()[:, 0].to(hidden.device)
        one = slice(row, row + 1)
        query = heads("q", states[one, asking], cos[one, asking], sin[one, asking])
        query = query[0].unflatten(0, (keys.shape[1], -1))  # [key heads, queries for each, T, D]
        logits = (query @ keys[row, :, None].mT).float() * attention.scaling
        if layout.bias is not None:
            logits = logits + layout.bias[row]
        visible = valid[row] & (place <= asking[:, None])
        each = logits.masked_fill(~visible, -torch.inf).softmax(-1).mean((0, 1))  # [T, S]
        columns = columns.to(hidden.device)
        found.append((shares @ each[:, columns], keys[row, :, columns].transpose(0, 1).flatten(1)))
    return found


def can_look(layer: Any) -> bool:
    """Whether a layer is laid out as Llama's: `received` needs it."""
    attention = getattr(layer, "self_attn", None)
    return (
        hasattr(layer, "input_layernorm")
        and all(hasattr(attention, name) for name in ("q_proj", "k_proj", "head_dim", "scaling", "layer_idx"))
        and hasattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb")
    )
