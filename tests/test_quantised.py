"""Quantised language models: the tower stays as it is, so the same tokens are kept, and logits hardly move.

With torchao, and with bitsandbytes where it is installed (125 MB, which the development tools do not bring).
"""

import copy
from importlib.util import find_spec

import pytest
import torch
from builders import PICTURE, answer, llava, processor, prompt
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers import BitsAndBytesConfig

import prumerge

KEEP = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


def by_torchao(model, _):
    quantised = copy.deepcopy(model)
    quantize_(quantised.model.language_model, Int8WeightOnlyConfig())
    return quantised


def by_bitsandbytes(model, folder):
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    eight_bit = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=KEEP)
    options = {"quantization_config": eight_bit, "device_map": "cpu", "dtype": torch.float32}
    return prumerge.load(str(folder), **options)[0]


@pytest.mark.parametrize("quantise", [by_torchao, *([by_bitsandbytes] if find_spec("bitsandbytes") else [])])
def test_an_eight_bit_language_model_keeps_the_same_tokens(tmp_path, quantise):
    model, inputs = llava(), prompt([5, PICTURE, 6, 7], [8, PICTURE, PICTURE, 9])
    quantised = quantise(model, tmp_path)
    first, ours = (one.model.language_model.layers[0].mlp.up_proj.weight for one in (model, quantised))
    assert type(ours) is not type(first)
    for name, weight in model.model.vision_tower.named_parameters():
        assert torch.equal(quantised.model.vision_tower.get_parameter(name), weight)
    for (_, ours), (_, same) in zip(
        *(prumerge.select(one, inputs, "prumerge") for one in (quantised, model)), strict=True
    ):
        assert torch.equal(ours.index, same.index)
        assert torch.equal(ours.weights, same.weights)
    with torch.no_grad():
        expected, found = (
            one(**prumerge.reduce(one, inputs, "prumerge")).logits for one in (model, quantised)
        )
    assert 0 < (found - expected).norm() / expected.norm() < 0.05
    assert answer(quantised, prumerge.reduce(quantised, inputs, "prumerge")).shape == (2, 6)
