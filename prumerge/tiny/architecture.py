"""The model: a genuine `LlavaForConditionalGeneration` (CLIP tower, projector, Llama), only small."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from prumerge.tiny import scenes
from prumerge.tiny.vocabulary import make_tokenizer


@dataclass(frozen=True)
class Preset:
    """Sizes. Parameters include embeddings."""

    vision_width: int
    vision_layers: int
    vision_heads: int
    width: int
    layers: int
    heads: int
    ff: int
    side: int = scenes.SIDE


PRESETS = {
    "first": Preset(128, 5, 4, width=128, layers=4, heads=4, ff=384),  # 2.1 M
    "full": Preset(192, 6, 6, width=256, layers=4, heads=4, ff=688),  # 6.3 M
    "test": Preset(32, 2, 2, width=32, layers=1, heads=2, ff=64),
}


def make_model(preset: Preset, hard: bool = False) -> LlavaForConditionalGeneration:
    """A freshly initialised model, with words for hard scenes if `hard`; seed torch before."""
    tokenizer = make_tokenizer(hard)
    special = dict(
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=preset.vision_width,
            intermediate_size=4 * preset.vision_width,
            projection_dim=preset.vision_width,
            num_hidden_layers=preset.vision_layers,
            num_attention_heads=preset.vision_heads,
            image_size=preset.side,
            patch_size=scenes.PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=preset.width,
            intermediate_size=preset.ff,
            num_hidden_layers=preset.layers,
            num_attention_heads=preset.heads,
            num_key_value_heads=preset.heads,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            **special,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=scenes.GRID**2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **special,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(max_new_tokens=16, **special)
    positions = vision_tower(model).embeddings.position_embedding.weight
    with torch.no_grad():  # neighbours look alike from the start
        positions[1:] = 0.1 * sine_positions(scenes.GRID, preset.vision_width)
    return model


def vision_tower(model: LlavaForConditionalGeneration) -> Any:
    """The CLIP vision transformer, at whichever depth this version of transformers nests it."""
    tower = model.model.vision_tower
    return getattr(tower, "vision_model", tower)


def sine_positions(grid: int, width: int) -> Float[Tensor, "patches width"]:
    """Sines and cosines of the row and of the column, as in MAE."""
    frequencies = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(grid)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows = waves[:, None].expand(grid, grid, -1)
    columns = waves[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], -1).reshape(grid * grid, width)
