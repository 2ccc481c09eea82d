"""The sizes of a vision-language model that its cost depends on, read from a Hugging Face `config.json`.

Published files leave out what equals the default of Transformers, so the defaults that matter are here
(a test compares them with Transformers). Presets are excerpts of published files, in `models.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prumerge.errors import PrumergeError, short, unknown

_DATA = Path(__file__).parent / "models.json"
_Config = Mapping[str, Any]


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of the feed-forward network."""

    count: int
    active: int
    """Experts that each token goes through."""
    width: int
    shared: int = 0
    """Width of the expert that every token goes through as well."""


@dataclass(frozen=True)
class LanguageModel:
    """A decoder with rotary positions, grouped queries and a gated feed-forward network."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    """Width of the dense feed-forward network: three matrices of width x ffn."""
    vocabulary: int
    experts: Experts | None = None
    sparse: tuple[bool, ...] = ()
    """For each layer, whether experts replace the feed-forward network; empty if there are none."""
    tied: bool = False
    """Whether the head is the transposed embedding."""

    def is_sparse(self, layer: int) -> bool:
        return bool(self.sparse) and self.sparse[layer]


@dataclass(frozen=True)
class VisionTower:
    """A vision transformer."""

    layers: int
    width: int
    heads: int
    ffn: int
    patch: int
    """Input values of one patch: channels x height x width x frames."""
    side: int | None
    """Patches along each side of a picture, or None where pictures keep their own size."""
    gated: bool = False
    """Three feed-forward matrices in place of two."""
    class_token: bool = False
    read_layers: int = 0
    """Layers that the features depend on: LLaVA reads the output of the second last."""
    window: int | None = None
    """Patches that a patch sees, in all layers but `full_layers`."""
    full_layers: int = 0


@dataclass(frozen=True)
class Projector:
    """Matrices between tower and language model, as (inputs, outputs)."""

    matrices: tuple[tuple[int, int], ...]
    group: int = 1
    """Patches that become one visual token."""
    copies: int = 1
    """Projectors of this kind, each reading features of another layer (DeepStack)."""


@dataclass(frozen=True)
class Model:
    """A vision-language model."""

    name: str
    language: LanguageModel
    tower: VisionTower
    projector: Projector
    tiles: int = 1
    """Pieces of a picture that the tower encodes by default."""
    notes: tuple[str, ...] = ()
    """What had to be assumed."""

    @property
    def visual_tokens(self) -> int | None:
        """Visual tokens of one tile, or None where pictures keep their own size."""
        return self.tower.side**2 // self.projector.group if self.tower.side else None


# What Transformers takes for granted where a file says nothing.
_LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
_QWEN = _LLAMA | {"intermediate_size": 22016, "vocab_size": 151936, "num_key_value_heads": 32}
_MISTRAL = _LLAMA | {"intermediate_size": 14336, "num_key_value_heads": 8}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "mixtral": _MISTRAL | {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
    "clip_vision_model": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
    "siglip_vision_model": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
}
_FEATURE_LAYERS = {"llava": -2, "llava_next": -2}
# Original LLaVA checkpoints name their tower and have no vision_config.
_TOWERS = {
    "openai/clip-vit-large-patch14-336": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    }
}


@cache
def names() -> tuple[str, ...]:
    """The presets."""
    return tuple(presets())


def model(name: str) -> Model:
    """A preset by its name, or the model whose `config.json` (or its folder) is at this path."""
    if name in presets():
        return read(presets()[name]["config"], name)
    path = Path(name)
    try:
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise PrumergeError(unknown("model", name, names(), instead="give the path of a config.json"))
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise PrumergeError(f"{str(path)!r} is no JSON: {error}") from None
    except OSError as error:
        raise PrumergeError(f"{short(str(path))!r} cannot be read ({error.strerror}); name another") from None
    if not isinstance(config, dict):
        raise PrumergeError(f"{str(path)!r} is no model's config.json")
    return read(config, path.parent.name if path.name == "config.json" else path.stem)


def read(config: _Config, name: str = "model") -> Model:
    """A vision-language model from its config."""
    if "mm_vision_tower" in config:
        config = _original_llava(config)
    kind = config.get("model_type", "")
    text, vision = config.get("text_config"), config.get("vision_config")
    if text is None and vision is not None and "hidden_size" in config:
        text = config  # Qwen2-VL and Qwen2.5-VL write the text's sizes at the top
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise PrumergeError(
            f"{name} (model_type {kind!r}) is no vision-language model: "
            "its config has no text_config and vision_config"
        )
    language = read_language({"tie_word_embeddings": config.get("tie_word_embeddings", False), **text}, name)
    tower = read_tower(vision, config.get("vision_feature_layer", _FEATURE_LAYERS.get(kind, -1)), name)
    family = FAMILIES.get(kind)
    if family is None:
        known = ", ".join(FAMILIES)
        raise PrumergeError(
            f"{name}: how {kind!r} joins tower and language model is not known; known are: {known}"
        )
    notes = []
    if text.get("sliding_window") and text.get("use_sliding_window", True):
        notes.append(
            f"attention beyond the window of {text['sliding_window']} tokens is counted as if it were read"
        )
    tiles = 5 if kind == "llava_next" else 1  # the whole picture and a grid of two by two
    return Model(name, language, tower, family(config, tower, language), tiles, tuple(notes))


def read_language(config: _Config, name: str = "model") -> LanguageModel:
    """The language model from a `text_config`."""
    if "kv_lora_rank" in config:
        raise PrumergeError(f"{name}: attention with a latent cache (kv_lora_rank) is not covered")
    if any(kind.startswith("linear") for kind in config.get("layer_types") or ()):
        raise PrumergeError(f"{name}: layers of linear attention are not covered")
    get = _reader(config, name)
    layers, width, heads = get("num_hidden_layers"), get("hidden_size"), get("num_attention_heads")
    experts = _experts(config, get)
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    first = config.get("first_k_dense_replace", 0)
    sparse = tuple(
        layer not in dense and layer >= first and (layer + 1) % step == 0 for layer in range(layers)
    )
    return LanguageModel(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=get("num_key_value_heads", heads),
        head_dim=get("head_dim", width // heads),
        ffn=get("intermediate_size"),
        vocabulary=get("vocab_size"),
        experts=experts,
        sparse=sparse if experts else (),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def read_tower(config: _Config, feature_layer: int | list[int] = -1, name: str = "model") -> VisionTower:
    """The vision tower from a `vision_config`."""
    get = _reader(config, f"{name}: vision_config")
    layers = get("num_hidden_layers", config.get("depth"))
    width = config["embed_dim"] if "embed_dim" in config else get("hidden_size")
    ratio = config.get("mlp_ratio")
    patch = _side(get("patch_size"))
    sized = "image_size" in config or "image_size" in DEFAULTS.get(config.get("model_type", ""), {})
    side = _side(get("image_size")) // patch if sized else None
    deepest = max(
        layer + 1 + layers if layer < 0 else layer
        for layer in (feature_layer if isinstance(feature_layer, list) else [feature_layer])
    )
    if not 0 < deepest <= layers:
        raise PrumergeError(f"{name}: vision_feature_layer {feature_layer} is not among {layers} layers")
    window = config.get("window_size")
    return VisionTower(
        layers=layers,
        width=width,
        heads=get("num_attention_heads", config.get("num_heads")),
        ffn=get("intermediate_size", int(width * ratio) if ratio else None),
        patch=config.get("num_channels", config.get("in_channels", 3))
        * patch**2
        * config.get("temporal_patch_size", 1),
        side=side,
        # Qwen2.5-VL: three matrices and windows of 112 x 112 pixels.
        gated="fullatt_block_indexes" in config and "deepstack_visual_indexes" not in config,
        class_token=config.get("model_type") in ("clip_vision_model", "internvl_vision"),
        read_layers=deepest,
        window=(window // patch) ** 2 if window else None,
        full_layers=len(config.get("fullatt_block_indexes", ())),
    )


def _mlp(config: _Config, tower: VisionTower, language: LanguageModel) -> Projector:
    """LLaVA: two matrices for each token; features of several layers are concatenated."""
    layer = config.get("vision_feature_layer")
    inputs = tower.width * (len(layer) if isinstance(layer, list) else 1)
    return Projector(((inputs, language.width), (language.width, language.width)))


def _merger(config: _Config, tower: VisionTower, language: LanguageModel) -> Projector:
    """Qwen-VL: two matrices for each square of patches; DeepStack has one more for each layer it reads."""
    vision = config["vision_config"]
    group = vision.get("spatial_merge_size", 2) ** 2
    inner = tower.width * group
    copies = 1 + len(vision.get("deepstack_visual_indexes", ()))
    return Projector(((inner, inner), (inner, language.width)), group, copies)


def _shuffle(config: _Config, tower: VisionTower, language: LanguageModel) -> Projector:
    """InternVL: the pixel shuffle joins a square of patches, then two matrices."""
    group = round(1 / config.get("downsample_ratio", 0.5)) ** 2
    return Projector(((tower.width * group, language.width), (language.width, language.width)), group)


def _pooled(config: _Config, tower: VisionTower, language: LanguageModel) -> Projector:
    """Gemma 3: patches are averaged, then one matrix."""
    patches, tokens = (tower.side or 0) ** 2, config.get("mm_tokens_per_image", 256)
    if patches % tokens:
        raise PrumergeError(f"{patches} patches cannot be averaged to {tokens} visual tokens")
    return Projector(((tower.width, language.width),), patches // tokens)


FAMILIES: dict[str, Callable[[_Config, VisionTower, LanguageModel], Projector]] = {
    "llava": _mlp,
    "llava_next": _mlp,
    "llava_onevision": _mlp,
    "qwen2_vl": _merger,
    "qwen2_5_vl": _merger,
    "qwen3_vl": _merger,
    "qwen3_vl_moe": _merger,
    "internvl": _shuffle,
    "gemma3": _pooled,
}


def _experts(config: _Config, get: Callable[..., Any]) -> Experts | None:
    count = next(
        (config[key] for key in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(key)),
        DEFAULTS.get(config.get("model_type", ""), {}).get("num_local_experts"),
    )
    if not count:
        return None
    width = config.get("moe_intermediate_size") or get("intermediate_size")
    shared = config.get("shared_expert_intermediate_size") or config.get("n_shared_experts", 0) * width
    return Experts(count, get("num_experts_per_tok"), width, shared)


def _original_llava(config: _Config) -> _Config:
    """The layout of Transformers for a config of the original LLaVA code."""
    tower = config["mm_vision_tower"]
    if tower not in _TOWERS:
        raise PrumergeError(
            f"the sizes of the vision tower {tower!r} are not known; known are: {', '.join(_TOWERS)}"
        )
    if (kind := config.get("mm_projector_type", "linear")) != "mlp2x_gelu":
        raise PrumergeError(
            f"the projector {kind!r} of original checkpoints is not known; known is mlp2x_gelu"
        )
    return {
        "model_type": "llava",
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_config": _TOWERS[tower],
        "text_config": {**config, "model_type": "llama"},
    }


def _reader(config: _Config, name: str) -> Callable[..., Any]:
    """Look up a size: in the file, else what it implies, else the default of Transformers."""
    defaults = DEFAULTS.get(config.get("model_type", ""), {})

    def get(key: str, implied: Any = None) -> Any:
        value = config.get(key)
        if value is None:
            value = defaults.get(key, implied)
        if value is None:
            raise PrumergeError(f"{name}: the config has no {key}")
        sizes = value if isinstance(value, list | tuple) else [value]
        if not all(type(size) is int and size > 0 for size in sizes):
            raise PrumergeError(f"{name}: {key} must be a whole number above 0, not {value!r}")
        return value

    return get


def _side(size: int | list[int] | tuple[int, ...]) -> int:
    """Pictures and patches are square."""
    if isinstance(size, int):
        return size
    if len(set(size)) > 1:
        raise PrumergeError(f"pictures and patches must be square, not {size}")
    return size[0]


@cache
def presets() -> dict[str, Any]:
    return json.loads(_DATA.read_text(encoding="utf-8"))
