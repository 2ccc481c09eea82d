"""Whether a language model's layers are such that a method can work between them."""

from __future__ import annotations

import inspect
from typing import Any

from prumerge.errors import PrumergeError
from prumerge.layers.attention import can_look
from prumerge.reducer import LayerReducer


def check_depths(decoder: Any, method: LayerReducer, depths: tuple[int, ...]) -> None:
    """Raise ValueError for a depth that is none, or layers that no rows of attention can be read from."""
    layers = decoder.config.num_hidden_layers
    if list(depths) != sorted(set(depths)):
        raise PrumergeError(f"{method}: its stages end before layers {depths}, which must rise")
    if not all(0 <= depth < layers for depth in depths):
        raise PrumergeError(
            f"{method}: the language model has {layers} layers, so pruning can begin before layer "
            f"{layers - 1} at the latest, not {max(depths)}"
        )
    first = decoder.layers[0] if hasattr(decoder, "layers") else None
    if not can_look(first):
        raise PrumergeError(
            f"{method}: the layers of {type(decoder).__name__} are not laid out as Llama's (input_layernorm, "
            "self_attn.q_proj and k_proj, rotary positions); use a method before the language model"
        )
    assert first is not None
    if method.prefix and "past_key_values" not in inspect.signature(first.forward).parameters:
        raise PrumergeError(
            f"{method}: the layers of {type(decoder).__name__} take no past_key_values, through which keys "
            "and values become fewer; use a method before the language model"
        )
    if method.prefix and decoder.config._attn_implementation not in ("sdpa", "eager"):
        raise PrumergeError(
            f"{method}: {decoder.config._attn_implementation} takes no mask for fewer keys than queries; "
            "load the model with attn_implementation='sdpa'"
        )


def check_attention(decoder: Any, name: str, instead: str) -> None:
    """Raise ValueError for a language model whose layers take no mask of ours."""
    first = decoder.layers[0] if hasattr(decoder, "layers") else None
    if not (
        first is not None
        and hasattr(getattr(first, "self_attn", None), "layer_idx")
        and "attention_mask" in inspect.signature(first.forward).parameters
    ):
        raise PrumergeError(
            f"{name}: the layers of {type(decoder).__name__} take no attention_mask as Llama's do; {instead}"
        )
    kinds = getattr(decoder.config, "layer_types", None)
    window = getattr(decoder.config, "sliding_window", None)
    if set(kinds) != {"full_attention"} if kinds else window:
        raise PrumergeError(
            f"{name}: this language model attends through sliding windows, which count the tokens between; "
            f"{instead}"
        )
