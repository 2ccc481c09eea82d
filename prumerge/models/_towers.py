"""Vision towers that families share: LLaVA's, run as far as its configuration reads it, and those that the
model itself runs, with the input of one layer kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from prumerge.errors import PrumergeError
from prumerge.models._vision import Encoded, Merging, encode
from prumerge.models._weights import device_of, within_call

LLAVA_INPUTS = ("vision_feature_layer", "vision_feature_select_strategy")


def run_tower(
    tower: Any,
    config: Any,
    inputs: Mapping[str, Any],
    pixels: Float[Tensor, "B 3 H W"],
    strategy: str | None = None,
    *,
    merging: Merging | None = None,
    registers: bool = False,
) -> Encoded:
    """A LLaVA model's tower as far as its configuration reads it, or as the call says instead; on the way
    patches are merged by `merging`. `registers` says that the family can do with register tokens.

    Raises ValueError for a strategy that does not fit the tower, and for a tower with register tokens where
    the family cannot.
    """
    layers: Any
    layers, asked = (
        given if (given := inputs.get(name)) is not None else getattr(config, name, None)
        for name in LLAVA_INPUTS
    )
    strategy = strategy or asked
    encoded = encode(tower, pixels.to(device_of(tower)), layers, merging)
    if (strategy == "default") != encoded.class_token:
        raise PrumergeError(
            f"vision_feature_select_strategy={strategy!r} does not fit this vision tower: "
            "'default' drops the class token, 'full' is for towers without one"
        )
    if encoded.registers and not registers:
        raise PrumergeError(
            f"a vision tower with register tokens is not supported for models of type {config.model_type!r} "
            "yet; use one without registers"
        )
    return encoded


def run_model(
    look: Callable[..., Any], *pixels: Any, layers: Sequence[int], **inputs: Any
) -> tuple[Any, dict[int, Tensor]]:
    """The model's own `get_image_features`, and the hidden states with these (non-negative) numbers."""
    output = look(*pixels, **inputs, output_hidden_states=list(layers), return_dict=True)
    return output, {layer: output.hidden_states[layer] for layer in layers}


def scored(hidden: Float[Tensor, "B S C"], layer: Any, norm: Any, attention: Any, heads: int) -> Encoded:
    """A layer's input with the keys and queries that its parts make of it, for towers without class token."""

    def compute(hidden: Tensor) -> tuple[Tensor, Tensor]:
        read = norm(hidden)
        return attention.q_proj(read), attention.k_proj(read)

    queries, keys = within_call(layer, compute, hidden)
    return Encoded(hidden, queries, keys, heads, class_token=False)


def siglip(base: Any, tower: Any, *pixels: Any, **inputs: Any) -> tuple[Any, Encoded]:
    """A family that reads the last output of a tower laid out as SigLIP's."""
    last = len(tower.encoder.layers) - 1
    output, hidden = run_model(base.get_image_features, *pixels, layers=[last], **inputs)
    layer, heads = tower.encoder.layers[last], tower.config.num_attention_heads
    return output, scored(hidden[last], layer, layer.layer_norm1, layer.self_attn, heads)
