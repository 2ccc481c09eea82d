"""One LLaVA made of the parts of `real`."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from prumerge.loading.real.parts import Parts, find
from prumerge.loading.real.tower import tower_weights
from prumerge.loading.real.words import END, IMAGE, TEMPLATE, language_model, tokenizer

SIDE, PATCH = 336, 14
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def checkpoint() -> Path:
    """The folder of the assembled model, made of the installed parts when it is asked for the first time.

    It is in the user's cache ($XDG_CACHE_HOME or ~/.cache), 320 MB. Raises PrumergeError as `find` does.
    """
    parts = find()
    assert parts.adapter is not None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prumerge"
    folder = home / f"real-{sha256(parts.adapter.read_bytes()).hexdigest()[:12]}"
    if not (folder / "config.json").is_file():
        draft = folder.with_name(f".{folder.name}-{os.getpid()}")
        model, processor = assemble(parts)
        model.to(torch.bfloat16).save_pretrained(draft)
        processor.save_pretrained(draft)
        draft.replace(folder)
    return folder


def assemble(parts: Parts) -> tuple[Any, Any]:
    """The model in float32, in evaluation mode, and its processor.

    The projector is LLaVA's MLP, and reads the second last layer's patches; without `parts.adapter` its
    weights are drawn from torch's default generator.
    """
    words = tokenizer(parts.language)
    text, language = language_model(parts.language)
    model = llava(tower_weights(parts.tower), text, language, words)
    if parts.adapter is not None:
        adapt(model, parts.adapter)
    return model, processor_of(words)


def llava(
    tower: dict[str, Tensor], text: LlamaConfig, language: dict[str, Tensor], words: Any
) -> LlavaForConditionalGeneration:
    """A LLaVA of a tower's and a language model's weights, by Transformers' names."""
    end, image = words.convert_tokens_to_ids([END, IMAGE])
    text.bos_token_id, text.eos_token_id, text.pad_token_id = None, end, end
    config = LlavaConfig(
        vision_config=_tower_config(tower),
        text_config=text,
        image_token_index=image,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower)
    model.model.language_model.load_state_dict(language)
    model.tie_weights()
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    return model.eval()


def processor_of(words: Any) -> LlavaProcessor:
    """Pictures of 336 pixels, normalised as DINOv2's, and SmolLM2's turns."""
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=MEAN,
        image_std=DEVIATION,
    )
    return LlavaProcessor(
        pictures,
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )


@torch.no_grad()
def adapt(model: nn.Module, file: Path) -> None:
    """Put trained weights into a model: those of the projector as they are, and of LoRA the product
    `scale * B A` on top of each layer (`NAME.lora_A` [r, in] and `NAME.lora_B` [out, r])."""
    with safe_open(file, "pt") as held:
        scale = float(held.metadata()["scale"])
        for name in held.keys():  # noqa: SIM118 - no mapping
            layer, _, kind = name.rpartition(".")
            if kind == "lora_B":
                low, high = (held.get_tensor(f"{layer}.{part}").float() for part in ("lora_A", "lora_B"))
                model.get_parameter(f"{layer}.weight").add_(scale * high @ low)
            elif kind != "lora_A":
                model.get_parameter(name).copy_(held.get_tensor(name))


def _tower_config(weights: dict[str, Tensor]) -> Dinov2Config:
    """The architecture, by the shapes of the weights; a head has 64 channels, as in every DINOv2."""
    width = weights["embeddings.cls_token"].shape[-1]
    table = weights["embeddings.position_embeddings"].shape[1] - 1
    return Dinov2Config(
        hidden_size=width,
        num_hidden_layers=1 + max(int(name.split(".")[2]) for name in weights if "encoder.layer." in name),
        num_attention_heads=max(1, width // 64),
        image_size=round(table**0.5) * PATCH,
        patch_size=PATCH,
        use_mask_token="embeddings.mask_token" in weights,
    )
