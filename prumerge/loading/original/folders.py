"""A published checkpoint's folder: read, and given a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AddedToken,
    AutoTokenizer,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from prumerge.errors import PrumergeError
from prumerge.loading.original.weights import from_weights, is_published
from prumerge.loading.paths import first_line
from prumerge.loading.sources import read_settings
from prumerge.loading.weights import reading


def open_folder(folder: str | Path, **options: Any) -> tuple[Any, LlavaProcessor]:
    """The model of a checkpoint folder, and a processor of its tokenizer and its tower's pictures; raises as
    `read`."""
    model = read(folder, **options)
    config = _config(Path(folder))
    vision = model.config.vision_config
    tokenizer = _tokenizer(Path(folder), model)
    clip = vision.model_type == "clip_vision_model"
    patch = vision.patch_size * (2 if model.config.model_type == "mobilevlm" else 1)  # one token of 2 x 2
    processor = LlavaProcessor(
        image_processor=_image_processor(vision, padded=config.get("image_aspect_ratio") == "pad"),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        num_additional_image_tokens=int(clip),
    )
    return model, processor


def read(folder: str | Path, vision_config: Any = None, **options: Any) -> LlavaForConditionalGeneration:
    """The model of a checkpoint folder (safetensors, or pytorch_model*.bin).

    `vision_config` is the tower's where the checkpoint only names it; otherwise it is looked up by that name,
    as the tower's weights are where the checkpoint holds none. Placeholders get the id after the last word:
    `config.image_token_id`. `options` go to `from_pretrained` (dtype, device_map, quantization_config, ...).

    Raises ValueError, saying what is missing, for layouts that are not read.
    """
    folder = Path(folder)
    config, files = _config(folder), _files(folder)
    if not is_published(config) or not files:
        raise PrumergeError(
            f"{str(folder)!r} is no checkpoint of the original LLaVA code or of TinyLLaVA Factory: it needs "
            "their config.json, and weights in *.safetensors or pytorch_model*.bin"
        )
    weights = {name: tensor for file in files for name, tensor in _weights(file).items()}
    return from_weights(config, weights, vision_config, folder=folder, **options)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return read_settings(path) if path.is_file() else {}


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _weights(file: Path) -> dict[str, Tensor]:
    with reading(str(file)):
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(isinstance(one, Tensor) for one in weights.values()):
        raise PrumergeError(f"{str(file)!r} holds no weights by their names")
    return weights


def _tokenizer(folder: Path, model: Any) -> Any:
    """The folder's tokenizer with a word for placeholders, whose id becomes the model's."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever a package that reads vocabularies raises, or is not there to raise
        raise PrumergeError(
            f"{str(folder)!r} has no tokenizer that can be read ({first_line(error)}); add the "
            "tokenizer.json of its language model"
        ) from error
    tokenizer.add_tokens(AddedToken("<image>", special=True, normalized=False))
    token = tokenizer.convert_tokens_to_ids("<image>")
    words = model.config.text_config.vocab_size
    if token >= words:
        raise PrumergeError(
            f"the tokenizer has {token} words, the language model {words - 1}; they do not fit"
        )
    model.config.image_token_id = token
    model.generation_config.suppress_tokens = [token]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if model.generation_config.eos_token_id is None:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    return tokenizer


def _image_processor(vision: Any, *, padded: bool) -> LlavaImageProcessorPil:
    """CLIP's scaling and crop or SigLIP's scaling to a square, `padded` to one before; Pillow is enough."""
    square = {"height": vision.image_size, "width": vision.image_size}
    if vision.model_type == "clip_vision_model":
        return LlavaImageProcessorPil(
            size={"shortest_edge": vision.image_size}, crop_size=square, do_pad=padded
        )
    half = [0.5, 0.5, 0.5]
    return LlavaImageProcessorPil(
        size=square, do_center_crop=False, do_pad=padded, image_mean=half, image_std=half
    )
