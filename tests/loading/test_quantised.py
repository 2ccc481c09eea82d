"""Quantised language models: the tower stays as it is, so the same tokens are kept, and logits hardly move.

With torch's own eight bits everywhere, with torchao and bitsandbytes where they are installed: the tools for
development bring neither, since Transformers loads torchao wherever it finds it.
"""

import copy
from importlib.util import find_spec

import pytest
import torch
from builders import PICTURE, answer, llava, processor, prompt
from torch import nn
from transformers import BitsAndBytesConfig

import prumerge

KEEP = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


def by_torch(model, _):
    from torch.ao.quantization import quantize_dynamic

    quantised = copy.deepcopy(model)
    layers = quantize_dynamic(quantised.model.language_model, {nn.Linear}, dtype=torch.qint8)
    quantised.model.language_model = layers
    return quantised


def by_torchao(model, _):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantised = copy.deepcopy(model)
    quantize_(quantised.model.language_model, Int8WeightOnlyConfig())
    return quantised


def by_bitsandbytes(model, folder):
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    eight_bit = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=KEEP)
    options = {"quantization_config": eight_bit, "device_map": "cpu", "dtype": torch.float32}
    return prumerge.load(str(folder), **options)[0]


WAYS = {"torch": by_torch, "torchao": by_torchao, "bitsandbytes": by_bitsandbytes}


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("way", [way for way in WAYS if find_spec(way)])
def test_an_eight_bit_language_model_keeps_the_same_tokens(tmp_path, way):
    model, inputs = llava(), prompt([5, PICTURE, 6, 7], [8, PICTURE, PICTURE, 9])
    quantised = WAYS[way](model, tmp_path)
    first, ours = (one.model.language_model.layers[0].mlp.up_proj.weight for one in (model, quantised))
    assert type(ours) is not type(first)
    for name, weight in model.model.vision_tower.named_parameters():
        assert torch.equal(quantised.model.vision_tower.get_parameter(name), weight)
    chosen = (prumerge.select(one, inputs, "prumerge") for one in (quantised, model))
    for (_, ours), (_, same) in zip(*chosen, strict=True):
        assert torch.equal(ours.index, same.index)
        assert torch.equal(ours.weights, same.weights)
    with torch.no_grad():
        found, expected = (
            one(**prumerge.reduce(one, inputs, "prumerge")).logits for one in (quantised, model)
        )
    assert 0 < (found - expected).norm() / expected.norm() < 0.1
    assert answer(quantised, prumerge.reduce(quantised, inputs, "prumerge")).shape == (2, 4)
