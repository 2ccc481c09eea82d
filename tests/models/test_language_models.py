"""Any language model of Transformers in a LLaVA checkpoint."""

import pytest
import torch
import transformers as hf
from asking import answer, logits, reduced
from builders import IMAGE, PAD, vision_config
from families import FAMILIES, rows_of


def phi():
    return hf.PhiConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=120,
        pad_token_id=PAD,
        eos_token_id=None,
        initializer_range=0.3,
    )


def qwen2():
    return hf.Qwen2Config(**shape(), num_key_value_heads=2)


def mixture():
    return hf.MixtralConfig(**shape(), num_key_value_heads=2, num_local_experts=4)


def qwen_mixture():
    return hf.Qwen2MoeConfig(
        **shape(),
        num_key_value_heads=2,
        num_experts=4,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    )


def shape():
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 120,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": None,
        "initializer_range": 0.3,
    }


@pytest.mark.parametrize("text", [phi, qwen2, mixture, qwen_mixture], ids=lambda text: text.__name__)
def test_any_language_model_in_a_llava(text):
    """LLaVA-Phi, TinyLLaVA and MoE-LLaVA are LLaVA with Phi, Qwen2 or a mixture of experts."""
    torch.manual_seed(0)
    config = hf.LlavaConfig(vision_config=vision_config(), text_config=text(), image_token_index=IMAGE)
    model, family = hf.LlavaForConditionalGeneration(config).eval(), FAMILIES["Llava"]
    rows = rows_of(family)
    plain = logits(model, family.prompt(*rows))
    assert torch.equal(logits(model, reduced(model, family.prompt(*rows), "none")), plain)
    batch = answer(model, reduced(model, family.prompt(*rows)))
    for row, inputs in enumerate(rows):
        assert torch.equal(batch[row], answer(model, reduced(model, family.prompt(inputs)))[0])
