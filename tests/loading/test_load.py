"""From names and files to models and pictures: what loads, and what is refused in one sentence."""

import numpy as np
import pytest
import torch
from builders import answer, llava, processor
from PIL import Image
from transformers import AyaVisionConfig, LlamaConfig

import prumerge
from prumerge.loading.prompts import prepare


@pytest.fixture
def photo(tmp_path):
    """A picture that is none of the project's: noise over a gradient, in a shape of its own."""
    ramp = np.linspace(0, 200, 90 * 140 * 3).reshape(90, 140, 3)
    path = tmp_path / "photo.jpg"
    Image.fromarray((ramp + np.random.default_rng(0).uniform(0, 55, ramp.shape)).astype("uint8")).save(path)
    return path


@pytest.fixture
def llava_folder(tmp_path):
    """A checkpoint on disk, as the hub would hand it over."""
    folder = tmp_path / "checkpoint"
    llava().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


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


def test_a_checkpoint_folder_loads_by_its_path(llava_folder):
    model, loaded = prumerge.load(str(llava_folder))
    image = Image.effect_noise((80, 60), 90).convert("RGB")
    inputs = prepare(loaded, image, "w5 w6")
    short = prumerge.reduce(model, inputs, "prumerge:keep=3")
    assert (short["input_ids"] == model.config.image_token_id).sum() == 4  # the extra token comes on top
    assert answer(model, short).shape == (1, 6)
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


def test_a_folder_without_weights_is_called_incomplete(llava_folder):
    (llava_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="is not complete"):
        prumerge.load(str(llava_folder))


def test_a_name_that_is_nowhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"there is no model to load at .*nowhere"):
        prumerge.load(str(tmp_path / "nowhere"))


def broken(kind, folder):
    path = folder / f"{kind}.png"
    if kind == "missing":
        return path
    if kind == "text":
        path.write_text("this is no picture")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        Image.effect_noise((200, 200), 90).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "dot":
        Image.new("RGB", (1, 1)).save(path)
    elif kind == "huge":
        Image.new("1", (20_000, 20_000)).save(path)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "there is no picture at"),
        ("folder", "there is no picture at"),
        ("empty", "is empty"),
        ("text", "is no picture that Pillow can read"),
        ("truncated", "is damaged or cut short"),
        ("dot", "is 1 x 1 pixels; a picture needs at least 14 a side"),
        ("huge", "has more than 100 megapixels; scale it down"),
    ],
)
def test_a_file_that_cannot_be_shown_to_a_model_is_refused(tmp_path, kind, sentence):
    with pytest.raises(ValueError, match=sentence):
        prumerge.open_image(broken(kind, tmp_path))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "LA"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (20, 20), "red").convert("L" if mode == "I;16" else "RGB").convert(mode).save(path)
    assert prumerge.open_image(path).mode == "RGB"


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    Image.new("I;16", (20, 20), 0x8000).save(tmp_path / "grey.png")
    assert prumerge.open_image(tmp_path / "grey.png").getpixel((3, 3)) == (128, 128, 128)


def test_transparency_becomes_white_and_turned_photos_stand_upright(tmp_path):
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert prumerge.open_image(tmp_path / "clear.png").getpixel((3, 3)) == (255, 255, 255)
    turned = Image.new("RGB", (40, 20))
    turned.getexif()[0x0112] = 6  # "rotate by 90 degrees"
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    assert prumerge.open_image(tmp_path / "turned.jpg").size == (20, 40)


def test_of_an_animation_the_first_frame_is_seen(tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert prumerge.open_image(tmp_path / "a.gif").getpixel((3, 3)) == (255, 0, 0)
