"""Models whose weights are elsewhere until they are used: offloaded by accelerate, sharded by FSDP."""

import copy
from functools import partial

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from asking import SPEC, logits, reduced
from families import FAMILIES, rows_of
from PIL import Image
from sharding import gradients_where_sharded, gradients_where_whole

import prumerge
from prumerge.generate.answer import answer
from prumerge.models import device_of

# Untouched they do not work: Transformers reads weights or values outside of the calls that accelerate sees.
NOT_OFFLOADED = {"LlavaOnevision", "OnevisionShrunk", "OnevisionTogether", "Idefics3", "Gemma3", "PaliGemma"}

SHARDED = (SPEC, "tome:r=2")


def offloaded(family, folder=None):
    model, cpu = copy.deepcopy(family.model()), torch.device("cpu")
    if folder is None:
        cpu_offload(model, execution_device=cpu)
    else:
        disk_offload(model, folder, execution_device=cpu)
    return model


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in NOT_OFFLOADED])
def test_an_offloaded_model_is_reduced_as_one_in_memory(name):
    family = FAMILIES[name]
    inputs = family.prompt(rows_of(family)[0])
    away, here = offloaded(family), family.model()
    assert next(away.parameters()).is_meta
    assert device_of(away) == torch.device("cpu")
    assert torch.equal(logits(away, inputs), logits(here, inputs))
    for spec in ("none", SPEC, "cdpruner:keep=3"):
        expected = logits(here, reduced(here, inputs, spec))
        torch.testing.assert_close(logits(away, reduced(away, inputs, spec)), expected)
    assert next(away.parameters()).is_meta


@pytest.mark.parametrize("spec", ["tome:r=2", "fastv:keep=3,layer=1", SPEC])
def test_an_offloaded_model_is_merged_inside_and_pruned_inside(spec, tmp_path):
    family = FAMILIES["Llava"]
    inputs, found = family.prompt(rows_of(family)[0]), []
    for model in (family.model(), offloaded(family), offloaded(family, tmp_path)):
        with prumerge.attach(model, spec):
            found.append(logits(model, inputs))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return gradients_where_sharded(SHARDED, tmp_path_factory.mktemp("sharded"))


@pytest.mark.parametrize("spec", SHARDED)
def test_layers_of_the_tower_may_be_sharded(spec, sharded):
    """Two processes, a row of the batch each: losses and gradients are those of the batch."""
    losses, gradients = sharded[spec]
    expected_losses, expected = gradients_where_whole(spec)
    torch.testing.assert_close(losses, expected_losses)
    assert gradients.keys() == expected.keys()
    assert any("vision_tower" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reducer", [None, SPEC])
def test_an_offloaded_model_answers(small, reducer):
    model, processor = prumerge.load(str(small))
    ask = partial(answer, processor=processor, media=blank(), question="what is it ?", reducer=reducer)
    expected = ask(model)
    cpu_offload(model, execution_device=torch.device("cpu"))
    found = ask(model)
    assert (found.answer, found.visual_tokens) == (expected.answer, expected.visual_tokens)


def blank():
    return Image.new("RGB", (90, 60), "red")
