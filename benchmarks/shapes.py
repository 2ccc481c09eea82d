"""The shape of LLaVA-1.5-7B, for random weights."""

from __future__ import annotations

from typing import Any

import torch
from measure import DEVICE
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration


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


def random_7b(processor: Any, *, small: bool = False) -> LlavaForConditionalGeneration:
    """LLaVA-1.5-7B's shape with random weights in bfloat16, made where it will stay."""
    words = processor.tokenizer
    less = {"hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 512, "num_attention_heads": 4}
    config = llava_7b(
        image_token=words.convert_tokens_to_ids("<image>"),
        pad_token_id=words.pad_token_id,
        eos_token_id=None,
        **(less if small else {}),
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        model = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()
