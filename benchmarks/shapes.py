"""The shape of LLaVA-1.5-7B, for random weights."""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig


def llava_7b(*, image_token: int, **text: Any) -> LlavaConfig:
    """CLIP ViT-L/14 at 336 px and a Vicuna-7B as wide as the real one; `text` changes the language model."""
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    language = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
    }
    return LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**{**language, **text}), image_token_index=image_token
    )
