"""From a published config.json and weights to a model: its configuration, its parts, its tower."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPVisionConfig,
    LlavaForConditionalGeneration,
)

from prumerge.errors import PrumergeError
from prumerge.loading.architectures import (
    LlavaPhiForConditionalGeneration,
    MobileVLMForConditionalGeneration,
    MoELlavaForConditionalGeneration,
)
from prumerge.loading.original.names import renamed
from prumerge.loading.paths import first_line
from prumerge.loading.sources import find
from prumerge.loading.weights import check_weights, reading

# Which language model an architecture of the original layout holds, by the word in its name.
_LANGUAGE = {"Llama": "llama", "Mistral": "mistral", "Phi": "phi", "Qwen": "qwen2", "Stable": "stablelm"}
_WORDS = "model.language_model.embed_tokens.weight"
_PROJECTORS = ("mlp2x_gelu", "ldpnet", "ldpnetv2")
_EXPERT = re.compile(r"model\.language_model\.layers\.(\d+)\.mlp\.experts\.\d+\.(?:fc1|gate_proj)\.weight$")


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of one of these layouts."""
    named = ("mm_vision_tower", "mm_image_tower")
    return config.get("model_type") == "tinyllava" or any(name in config for name in named)


def from_weights(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    vision_config: Any = None,
    *,
    folder: Path | None = None,
    **options: Any,
) -> LlavaForConditionalGeneration:
    """As `read`, from what the files hold; a tower that is named by a relative path is in `folder`."""
    name = str(folder or "in memory")
    access: dict[str, Any] = {
        key: options[key] for key in ("cache_dir", "token", "local_files_only") if key in options
    }
    made = {renamed(name): tensor for name, tensor in weights.items()}
    made = {name: one for name, one in made.items() if not name.endswith(("position_ids", "inv_freq"))}
    architecture, settings = _architecture(config, made)
    tower = _tower(config, folder)
    vision = vision_config or _vision_config(config, tower, access)
    if not any(key.startswith("model.vision_tower.") for key in made):
        made |= _tower_weights(tower, vision, access)
    for key in (_WORDS, "lm_head.weight", "lm_head.bias"):
        if key in made:  # one row more, for the placeholder, whose embedding is never read
            made[key] = torch.cat([made[key], torch.zeros_like(made[key][:1])])
    if settings["text_config"].tie_word_embeddings and _WORDS in made:
        made.setdefault("lm_head.weight", made[_WORDS])
    selected = _given(config, "mm_vision_select_feature", "vision_feature_select_strategy")
    with reading(name):
        whole = architecture.config_class(
            **settings,
            vision_config=vision,
            vision_feature_select_strategy=(
                "full" if selected == "cls_patch" or vision.model_type != "clip_vision_model" else "default"
            ),
        )
        options = {"dtype": next(iter(made.values())).dtype, "ignore_mismatched_sizes": True, **options}
        model, told = architecture.from_pretrained(
            None, config=whole, state_dict=made, output_loading_info=True, **options
        )
    check_weights(name, told)
    model.generation_config.suppress_tokens = [whole.image_token_index]  # a placeholder is never an answer
    return model.eval()


def _architecture(config: Mapping[str, Any], made: Mapping[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    """The class of the model, and the settings of its configuration that do not depend on the tower."""
    kind = _given(config, "mm_projector_type", "image_projector_type", "connector_type") or "linear"
    if kind not in _PROJECTORS:
        raise PrumergeError(f"a projector of type {kind!r} is not read; there are: {', '.join(_PROJECTORS)}")
    text = _text_config(config)
    layer = _given(config, "mm_vision_select_layer", "vision_feature_layer")
    settings = {
        "text_config": text,
        "image_token_index": text.vocab_size,
        "vision_feature_layer": -2 if layer is None else layer,
    }
    text.vocab_size += 1
    experts = Counter(found[1] for name in made if (found := _EXPERT.match(name)))
    if experts:
        top_k = config.get("moe", {}).get("top_k_experts", 2)
        return MoELlavaForConditionalGeneration, {**settings, "experts": dict(experts), "top_k": top_k}
    if kind.startswith("ldpnet"):
        return MobileVLMForConditionalGeneration, {**settings, "projector": kind}
    if "lm_head.bias" in made:
        return LlavaPhiForConditionalGeneration, settings
    return LlavaForConditionalGeneration, settings


def _given(config: Mapping[str, Any], *names: str) -> Any:
    """What a config.json says under the first of these names that it has."""
    return next((config[name] for name in names if config.get(name) is not None), None)


def _text_config(config: Mapping[str, Any]) -> Any:
    if "text_config" in config:
        return _configuration("text_config", config["text_config"])
    architecture = (config.get("architectures") or [""])[0]
    kind = next((kind for word, kind in _LANGUAGE.items() if word in str(architecture)), None)
    if kind is None:
        raise PrumergeError(
            f"the language model of {architecture!r} is not read; there are: {', '.join(_LANGUAGE.values())}"
        )
    return _configuration("config.json", {**config, "model_type": kind})


def _configuration(named: str, settings: Any) -> Any:
    """What some settings of a config.json describe, as Transformers' own configuration."""
    try:
        return AutoConfig.for_model(**settings)
    except Exception as error:  # whatever a class raises whose settings have wrong types
        raise PrumergeError(
            f"the checkpoint's {named} describes no model that Transformers knows ({first_line(error)})"
        ) from error


def _tower(config: Mapping[str, Any], folder: Path | None) -> str:
    """What the tower is called: a Hugging Face id, or a folder."""
    name = str(_given(config, "mm_vision_tower", "mm_image_tower", "vision_model_name_or_path") or "")
    inside = folder / name if folder is not None and name else None
    return str(inside) if inside is not None and inside.is_dir() else name


def _vision_config(config: Mapping[str, Any], tower: str, access: dict[str, Any]) -> Any:
    if "vision_config" in config:
        return _configuration("vision_config", config["vision_config"])
    if tower.endswith("clip-vit-large-patch14-336"):
        return CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
        )
    try:
        found = AutoConfig.from_pretrained(find(tower, dict(access)).name, **access)
    except (OSError, ValueError) as error:
        raise PrumergeError(
            f"the tower {tower!r} is only named and cannot be reached; pass its configuration as "
            "vision_config"
        ) from error
    return getattr(found, "vision_config", found)


def _tower_weights(tower: str, vision: Any, access: dict[str, Any]) -> dict[str, Tensor]:
    """Those of the tower that a checkpoint only names, under Transformers' names."""
    with torch.device("meta"):
        kind = type(AutoModel.from_config(vision))
    try:
        found = kind.from_pretrained(find(tower, dict(access)).name, config=vision, dtype="auto", **access)
    except (OSError, ValueError) as error:
        raise PrumergeError(
            f"the checkpoint holds no vision tower, and {tower!r} cannot be reached; add the tower's weights "
            "to its folder"
        ) from error
    return {f"model.vision_tower.{name}": tensor for name, tensor in found.state_dict().items()}
