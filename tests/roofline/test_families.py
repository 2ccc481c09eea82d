"""Families whose config.json is read: a small real model of each costs what the formulas say, to the integer.

On the CPU, with eager attention: the counter does not know the CPU's fused one.
"""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from prumerge.roofline.configs import FAMILIES, read
from prumerge.roofline.cost import Setting, connector, prefill, vision_tower
from prumerge.roofline.verify import flops

TEXT = 10
IMAGE = 290
LANGUAGE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "bos_token_id": None,
    "eos_token_id": None,
}
QWEN_LANGUAGE = LANGUAGE | {
    "head_dim": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
TOWER = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 112,
    "patch_size": 14,
}
SIGLIP = TOWER | {"model_type": "siglip_vision_model", "vision_use_head": False}
CLIP = TOWER | {"model_type": "clip_vision_model"}
QWEN_TOWER = {"depth": 3, "hidden_size": 64, "out_hidden_size": 64, "num_heads": 4, "intermediate_size": 96}
QWEN3_TOWER = QWEN_TOWER | {"patch_size": 16, "deepstack_visual_indexes": [0], "num_position_embeddings": 256}
TILES = [[112, 112], [224, 224]]

# family: text, vision, the rest of its config; tiles, side of a tile in patches, visual tokens with newlines
CASES: dict[str, Any] = {
    "llava": (LANGUAGE | {"model_type": "llama"}, CLIP, {}, 1, 8, 64),
    "llava_next": (
        LANGUAGE | {"model_type": "mistral"},
        CLIP,
        {"image_grid_pinpoints": TILES[1:]},
        5,
        8,
        (64 + 256, 16),
    ),
    "llava_onevision": (
        LANGUAGE | {"model_type": "qwen2"},
        SIGLIP,
        {"image_grid_pinpoints": TILES[:1]},
        2,
        8,
        (64 + 64, 8),
    ),
    "qwen2_vl": (
        LANGUAGE | {"rope_parameters": QWEN_LANGUAGE["rope_parameters"]},
        {"depth": 3, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2},
        {},
        1,
        16,
        64,
    ),
    "qwen2_5_vl": (
        LANGUAGE | {"rope_parameters": QWEN_LANGUAGE["rope_parameters"]},
        QWEN_TOWER | {"fullatt_block_indexes": [1]},
        {},
        1,
        16,
        64,
    ),
    "qwen3_vl": (QWEN_LANGUAGE, QWEN3_TOWER, {}, 1, 16, 64),
    "qwen3_vl_moe": (QWEN_LANGUAGE | EXPERTS, QWEN3_TOWER, {}, 1, 16, 64),
    "internvl": (
        LANGUAGE | {"model_type": "qwen2"},
        TOWER | {"image_size": [112, 112], "patch_size": [14, 14]},
        {"image_seq_length": 16},
        1,
        8,
        16,
    ),
    "gemma3": (LANGUAGE | {"head_dim": 16}, SIGLIP, {"mm_tokens_per_image": 16}, 1, 8, 16),
}


def inputs(family, config, tiles, side, placeholders):
    """What the family's processor would give."""
    ids = torch.tensor([[IMAGE] * placeholders + [1] * TEXT])
    kinds = (ids == IMAGE).long()
    vision = config.vision_config
    if family.startswith("qwen"):
        pixels = torch.randn(side * side, 3 * vision.temporal_patch_size * vision.patch_size**2)
        grid = torch.tensor([[1, side, side]])
        return {"input_ids": ids, "pixel_values": pixels, "image_grid_thw": grid, "mm_token_type_ids": kinds}
    pixels = torch.randn(tiles, 3, 112, 112)
    if family == "gemma3":
        return {"input_ids": ids, "pixel_values": pixels, "token_type_ids": kinds}
    if family in ("llava_next", "llava_onevision"):
        size = torch.tensor(config.image_grid_pinpoints)
        return {"input_ids": ids, "pixel_values": pixels[None], "image_sizes": size}
    return {"input_ids": ids, "pixel_values": pixels}


def test_every_family_is_counted():
    assert set(CASES) == set(FAMILIES)


@pytest.mark.parametrize("family", CASES)
def test_a_small_model_costs_what_the_formulas_say(family):
    text, vision, rest, tiles, side, visual = CASES[family]
    visual, newlines = visual if isinstance(visual, tuple) else (visual, 0)
    token = (
        {"image_token_id": IMAGE}
        if family in ("internvl",) or "qwen" in family
        else {"image_token_index": IMAGE}
    )
    config = CONFIG_MAPPING[family](text_config=dict(text), vision_config=dict(vision), **token, **rest)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    if family == "qwen3_vl_moe":
        model.config.text_config._experts_implementation = "batched_mm"
    given = inputs(family, config, tiles, side, visual + newlines)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**given, use_cache=True, logits_to_keep=1)

    sizes, setting = read(config.to_dict(), family), Setting()
    prompt = [visual + newlines + TEXT] * sizes.language.layers
    assert counter.get_total_flops() == (
        flops(vision_tower(sizes.tower, side * side, tiles, setting, whole=True))
        + flops(connector(sizes.projector, visual, setting))
        + flops(prefill(sizes.language, prompt, setting))
    )
    assert sizes.visual_tokens in (None, visual // tiles)
    read_layers = 2 if family in ("llava", "llava_next") else 3
    assert sizes.tower.read_layers == read_layers
