"""Checkpoints as the original LLaVA code and TinyLLaVA Factory publish them, from small random models."""

import json

import torch
from builders import IMAGE, PAD, SIZES, vision_config
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    StableLmConfig,
)

from prumerge.loading.architectures import LlavaPhiForConditionalGeneration


def text(kind):
    return kind(
        **SIZES,
        num_key_value_heads=4,
        vocab_size=IMAGE,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=None,
    )


def published(kind, layout, tower="clip"):
    """A model of Transformers, and its config.json and weights as they were published."""
    torch.manual_seed(0)
    language = text(kind)
    architecture = LlavaPhiForConditionalGeneration if kind is PhiConfig else LlavaForConditionalGeneration
    config = architecture.config_class(
        vision_config=vision_config(tower),
        text_config=language,
        image_token_index=3,
        vision_feature_select_strategy="default" if tower == "clip" else "full",
    )
    model = architecture(config).eval()
    if kind is PhiConfig:
        torch.nn.init.normal_(model.lm_head.bias)
    names = {
        "original": {
            "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
            "model.multi_modal_projector.linear_1": "model.mm_projector.0",
            "model.multi_modal_projector.linear_2": "model.mm_projector.2",
            "model.language_model.": "model.",
        },
        "factory": {
            "model.vision_tower.": "vision_tower._vision_tower.vision_model.",
            "model.multi_modal_projector.linear_1": "connector._connector.0",
            "model.multi_modal_projector.linear_2": "connector._connector.2",
            "model.language_model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
        },
    }[layout]
    weights = {}
    for name, weight in model.state_dict().items():
        old = next((old for old in names if name.startswith(old)), None)
        weights[name.replace(old, names[old], 1) if old else name] = weight.clone()
    told = {"vision_config": vision_config(tower).to_dict()}
    if layout == "original":
        architecture = {
            PhiConfig: "LlavaPhiForCausalLM",
            Qwen2Config: "LlavaQwen2ForCausalLM",
            LlamaConfig: "LlavaLlamaForCausalLM",
            MistralConfig: "LlavaMistralForCausalLM",
            StableLmConfig: "LlavaStablelmForCausalLM",
        }[kind]
        told |= language.to_dict() | {"architectures": [architecture], "model_type": "llava_other"}
        told |= {"mm_vision_tower": "some/tower", "mm_projector_type": "mlp2x_gelu"}
        told |= {"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch"}
    else:
        told |= {"model_type": "tinyllava", "text_config": language.to_dict(), "connector_type": "mlp2x_gelu"}
        told |= {"vision_feature_layer": -2, "vision_feature_select_strategy": "patch"}
    return model, told, weights


def words(folder, count=IMAGE):
    """A tokenizer whose words w0, w1, ... are their own ids."""
    made = Tokenizer(models.WordLevel({f"w{token}": token for token in range(count)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0", bos_token="w1", eos_token="w2")
    tokenizer.save_pretrained(folder)


def on_disk(folder, config, weights, form="safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    words(folder)
    if form == "bin":
        torch.save(weights, folder / "pytorch_model-00001-of-00001.bin")
    else:
        save_file(weights, folder / "model.safetensors")
    return folder
