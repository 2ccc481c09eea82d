"""Any language model of Transformers in a LLaVA checkpoint."""

import pytest
import torch
import transformers as hf
from asking import answer, logits, reduced
from builders import IMAGE, LANGUAGE, vision_config
from families import FAMILIES, phi, rows_of


def qwen2():
    return hf.Qwen2Config(**LANGUAGE, num_key_value_heads=2)


def mixture():
    return hf.MixtralConfig(**LANGUAGE, num_key_value_heads=2, num_local_experts=4)


def qwen_mixture():
    return hf.Qwen2MoeConfig(
        **LANGUAGE,
        num_key_value_heads=2,
        num_experts=4,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    )


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
