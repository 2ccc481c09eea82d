"""From names to models: what loads, with which options, and what is refused before weights are read."""

import numpy as np
import pytest
import torch
from builders import answer
from noise import noise
from PIL import Image
from transformers import AyaVisionConfig, LlamaConfig

import prumerge
from prumerge.errors import PrumergeError
from prumerge.loading.prompts import prepare


@pytest.fixture
def photo(tmp_path):
    """A picture that is none of the project's: noise over a gradient, in a shape of its own."""
    ramp = np.linspace(0, 200, 90 * 140 * 3).reshape(90, 140, 3)
    path = tmp_path / "photo.jpg"
    Image.fromarray((ramp + np.random.default_rng(0).uniform(0, 55, ramp.shape)).astype("uint8")).save(path)
    return path


def test_the_embedded_model_answers_about_any_picture(photo):
    model, processor = prumerge.load("tiny")
    inputs = prepare(processor, prumerge.open_image(photo), "is there a cat?")
    short = prumerge.reduce(model, inputs, "prumerge")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 576
    assert short["input_ids"].shape[1] < inputs["input_ids"].shape[1]
    assert model.generate(**short, max_new_tokens=4).shape[1] > short["input_ids"].shape[1]


def test_a_processor_without_chat_template_gets_the_prompt_of_llava(photo):
    _, processor = prumerge.load("tiny")
    image = prumerge.open_image(photo)
    with_template = prepare(processor, image, "is there a cat?")
    processor.chat_template = None
    without = prepare(processor, image, "is there a cat?")
    assert torch.equal(with_template["input_ids"], without["input_ids"])


def test_a_checkpoint_folder_loads_by_its_path(checkpoint):
    model, loaded = prumerge.load(str(checkpoint))
    image = noise((80, 60))
    inputs = prepare(loaded, image, "w5 w6")
    short = prumerge.reduce(model, inputs, "prumerge:keep=3")
    assert (short["input_ids"] == model.config.image_token_id).sum() == 4  # the extra token comes on top
    assert answer(model, short).shape == (1, 4)
    assert not model.training
    assert loaded.tokenizer.padding_side == "left"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (LlamaConfig(), "'llama' is not a vision-language model"),
        (AyaVisionConfig(), "models of type 'aya_vision' are not supported yet; supported: blip_2"),
    ],
)
def test_a_model_that_cannot_be_reduced_is_refused_before_its_weights_are_read(tmp_path, config, sentence):
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        prumerge.load(str(tmp_path))


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_a_dtype_has_two_names(checkpoint, option, dtype):
    assert prumerge.load(checkpoint, **{option: dtype})[0].dtype == torch.bfloat16
    assert prumerge.load("tiny", **{option: dtype})[0].dtype == torch.bfloat16


@pytest.mark.parametrize("device_map", ["meta", {"": "meta"}, torch.device("meta")])
def test_weights_on_meta_are_refused(device_map):
    with pytest.raises(PrumergeError, match="there is no device 'meta' to run on"):
        prumerge.load("tiny", device_map=device_map)


@pytest.mark.parametrize("name", ["tiny:full", "tiny:hard"])
def test_other_embedded_models_are_in_the_repository_only(name, tmp_path, monkeypatch):
    monkeypatch.setattr("prumerge.tiny.__file__", str(tmp_path / "prumerge" / "tiny" / "__init__.py"))
    with pytest.raises(PrumergeError, match="in a clone of the repository only; take 'tiny'"):
        prumerge.load(name)
