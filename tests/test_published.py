"""Checkpoints in the layouts of the original LLaVA code and of TinyLLaVA Factory."""

import json

import pytest
import torch
from builders import IMAGE, PAD, PICTURE, prompt, vision_config
from safetensors.torch import save_file
from transformers import LlavaConfig, LlavaForConditionalGeneration, PhiConfig, Qwen2Config

import prumerge
from prumerge.published import from_weights, is_published, read


def text(kind):
    return kind(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=IMAGE,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=None,
    )


def published(kind, layout):
    """A model of Transformers, and its config.json and weights as they were published."""
    torch.manual_seed(0)
    language = text(kind)
    config = LlavaConfig(vision_config=vision_config(), text_config=language, image_token_index=3)
    model = LlavaForConditionalGeneration(config).eval()
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
    told = {"vision_config": vision_config().to_dict()}
    if layout == "original":
        architecture = {PhiConfig: "LlavaPhiForCausalLM", Qwen2Config: "LlavaQwen2ForCausalLM"}[kind]
        told |= language.to_dict() | {"architectures": [architecture], "model_type": "llava_other"}
        told |= {"mm_vision_tower": "some/tower", "mm_projector_type": "mlp2x_gelu"}
        told |= {"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch"}
    else:
        told |= {"model_type": "tinyllava", "text_config": language.to_dict(), "connector_type": "mlp2x_gelu"}
        told |= {"vision_feature_layer": -2, "vision_feature_select_strategy": "patch"}
    return model, told, weights


@pytest.mark.parametrize("layout", ["original", "factory"])
@pytest.mark.parametrize("kind", [PhiConfig, Qwen2Config], ids=["phi", "qwen2"])
def test_a_published_checkpoint_is_the_same_model(tmp_path, kind, layout):
    model, config, weights = published(kind, layout)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "model.safetensors")
    found = read(tmp_path)
    token = found.config.image_token_id
    assert token == IMAGE  # the id after the last word
    inputs = prompt([5, PICTURE, 6, 7], [8, PICTURE, PICTURE, 9])
    other = {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, 3)}
    with torch.no_grad():
        ours, theirs = found(**inputs).logits, model(**other).logits
        shorter = found(**prumerge.reduce(found, inputs, "prumerge")).logits
        expected = model(**prumerge.reduce(model, other, "prumerge")).logits
    torch.testing.assert_close(ours[..., :IMAGE], theirs)
    torch.testing.assert_close(shorter[..., :IMAGE], expected)


def test_what_is_not_read_is_refused(tmp_path):
    _, config, weights = published(PhiConfig, "original")
    assert is_published(config)
    assert not is_published({"model_type": "llava"})
    with pytest.raises(ValueError, match="is no checkpoint of the original LLaVA code"):
        (tmp_path / "config.json").write_text("{}")
        read(tmp_path)
    with pytest.raises(ValueError, match="a projector of type 'ldpnetv2' is not read"):
        from_weights({**config, "mm_projector_type": "ldpnetv2"}, weights)
    experts = {"model.layers.0.mlp.deepspeed_moe.experts.deepspeed_experts.0.fc1.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="experts in DeepSpeed's layout"):
        from_weights(config, experts)
    without = {name: weight for name, weight in weights.items() if "vision_tower" not in name}
    with pytest.raises(ValueError, match="holds no vision tower"):
        from_weights(config, without)
    named = {name: value for name, value in config.items() if name != "vision_config"}
    with pytest.raises(ValueError, match="the tower 'some/tower' is only named"):
        from_weights(named, weights)
    with pytest.raises(ValueError, match=r"does not fit: 1 weights are missing .*, 1 are unknown"):
        lost = "model.mm_projector.0.bias"
        from_weights(config, {name.replace(lost, "model.mm_other"): one for name, one in weights.items()})
