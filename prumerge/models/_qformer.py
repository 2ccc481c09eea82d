"""What BLIP-2 and InstructBLIP share: a Q-Former that makes 32 tokens of any picture, and a language model of
its own that is called with embeddings."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prumerge.models._delivery import project_each
from prumerge.models._pictures import pictures
from prumerge.models._vision import Encoded
from prumerge.models._weights import within_call
from prumerge.tokens import VisualTokens


def scored(base: Any, outputs: Any) -> list[VisualTokens]:
    """The queries' outputs; keys and queries are those of the Q-Former's last self-attention among them."""
    count = base.query_tokens.shape[1]
    layer = base.qformer.encoder.layer[-1]
    attention = layer.attention.attention

    def compute(read: Tensor) -> tuple[Tensor, Tensor]:
        return attention.query(read), attention.key(read)

    queries, keys = within_call(layer, compute, outputs.hidden_states[-2][:, :count])
    features, heads = outputs.last_hidden_state[:, :count], attention.num_attention_heads
    encoded = Encoded(features, queries, keys, heads, class_token=False)
    return pictures(encoded, 1, count)


def project(base: Any, features: list[Tensor]) -> list[Float[Tensor, "M H"]]:
    """All pictures through the projection at once."""
    return project_each(base.language_projection, features)


def deliver(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """Embeddings with the features in their places, since these models' `generate` takes nothing else.

    It insists on a picture, too: it gets one of a single patch, which costs nearly nothing, and placeholders
    become padding, so that it finds no place to put it.
    """
    ids = prompt["input_ids"]
    image = ids == base.config.image_token_id
    embeddings = base.get_input_embeddings()(ids)
    tokens = torch.cat(features).to(embeddings)
    prompt["inputs_embeds"] = embeddings.masked_scatter(image[..., None], tokens)
    prompt["input_ids"] = ids.masked_fill(image, base.config.text_config.pad_token_id or 0)
    prompt["pixel_values"] = tokens.new_zeros(1, 3, *[base.config.vision_config.patch_size] * 2)
    prompt["interpolate_pos_encoding"] = True
