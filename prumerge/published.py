"""Checkpoints published in the layout of the original LLaVA code, or of TinyLLaVA Factory, as models of
Transformers: LLaVA, LLaVA-Phi, TinyLLaVA and others with an MLP projector and any dense language model.

Only names differ. The original layout keeps the projector and the tower inside the language model
(`model.mm_projector.0`, `model.vision_tower.vision_tower.vision_model`), TinyLLaVA Factory beside it
(`connector._connector.0`, `vision_tower._vision_tower.vision_model`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

_NAMES = (
    (r"^(model\.)?vision_tower\._?vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (r"^(model\.mm_projector|connector\._connector)\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^(model\.mm_projector|connector\._connector)\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^model\.(?!vision_tower|multi_modal_projector|language_model)", "model.language_model."),
)
# Which language model an architecture of the original layout holds, by the word in its name.
_LANGUAGE = {"Phi": "phi", "Qwen": "qwen2", "Stable": "stablelm", "Mistral": "mistral"}


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of one of these layouts."""
    return config.get("model_type") == "tinyllava" or "mm_vision_tower" in config


def read(folder: str | Path, vision_config: Any = None) -> LlavaForConditionalGeneration:
    """The model of a checkpoint folder (safetensors).

    `vision_config` is the tower's where the checkpoint only names it; a name that ends in
    `clip-vit-large-patch14-336` is known. Placeholders get the id after the last word:
    `config.image_token_id`.

    Raises ValueError, saying what is missing, for layouts that are not read.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = sorted(folder.glob("*.safetensors"))
    if not is_published(config) or not files:
        raise ValueError(
            f"{str(folder)!r} is no checkpoint of the original LLaVA code or of TinyLLaVA Factory "
            "in safetensors"
        )
    weights = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return from_weights(config, weights, vision_config)


def from_weights(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], vision_config: Any = None
) -> LlavaForConditionalGeneration:
    """As `read`, from what the files hold."""
    if any("deepspeed_experts" in name for name in weights):
        raise ValueError(
            "experts in DeepSpeed's layout (MoE-LLaVA) are not read; save them as a Transformers model first"
        )
    kind = config.get("mm_projector_type") or config.get("connector_type") or "linear"
    if not kind.startswith("mlp2x"):
        raise ValueError(f"a projector of type {kind!r} is not read; there are: mlp2x_gelu")
    made = {_renamed(name): tensor for name, tensor in weights.items()}
    made = {name: tensor for name, tensor in made.items() if not name.endswith("position_ids")}
    if not any(name.startswith("model.vision_tower.") for name in made):
        raise ValueError("the checkpoint holds no vision tower; add the tower's weights to its folder")
    text = _text_config(config)
    layer, feature = (
        config.get(f"mm_vision_select_{what}", config.get(f"vision_feature_{other}"))
        for what, other in (("layer", "layer"), ("feature", "select_strategy"))
    )
    vision = vision_config or _vision_config(config)
    whole = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=text.vocab_size,
        vision_feature_layer=-2 if layer is None else layer,
        vision_feature_select_strategy=(
            "full" if feature == "cls_patch" or vision.model_type != "clip_vision_model" else "default"
        ),
    )
    whole.text_config.vocab_size += 1
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
        if name in made:  # one row more, for the placeholder, whose embedding is never read
            made[name] = torch.cat([made[name], torch.zeros_like(made[name][:1])])
    if text.tie_word_embeddings:
        made.setdefault("lm_head.weight", made["model.language_model.embed_tokens.weight"])
    model, told = LlavaForConditionalGeneration.from_pretrained(
        None, config=whole, state_dict=made, output_loading_info=True, dtype=next(iter(made.values())).dtype
    )
    missing, unknown = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    if missing or unknown:
        raise ValueError(
            f"the checkpoint does not fit: {len(missing)} weights are missing ({', '.join(missing[:2])}), "
            f"{len(unknown)} are unknown ({', '.join(unknown[:2])})"
        )
    return model.eval()


def _renamed(name: str) -> str:
    for pattern, new in _NAMES:
        name, found = re.subn(pattern, new, name)
        if found:
            break
    return name


def _text_config(config: Mapping[str, Any]) -> Any:
    if "text_config" in config:
        return AutoConfig.for_model(**config["text_config"])
    architecture = (config.get("architectures") or [""])[0]
    kind = next((kind for word, kind in _LANGUAGE.items() if word in architecture), "llama")
    return AutoConfig.for_model(
        kind, **{name: value for name, value in config.items() if name != "model_type"}
    )


def _vision_config(config: Mapping[str, Any]) -> Any:
    if "vision_config" in config:
        return AutoConfig.for_model(**config["vision_config"])
    if str(config["mm_vision_tower"]).endswith("clip-vit-large-patch14-336"):
        return CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
        )
    raise ValueError(
        f"the tower {config['mm_vision_tower']!r} is only named; pass its configuration as vision_config"
    )
