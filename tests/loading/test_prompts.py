"""From questions and pictures to inputs: one, several, and none of each, for every family's processor."""

import numpy as np
import pytest
import torch
from families import FAMILIES
from PIL import Image
from processors import PROCESSORS

from prumerge.errors import PrumergeError
from prumerge.loading.prompts import prepare, prepare_batch, question_prompt

# Whose `generate`, or whose processor, insists on a picture.
SEES_ONLY = {"PaliGemma", "Blip2", "InstructBlip", "TinyGPTV"}
EVERY = pytest.mark.parametrize("name", PROCESSORS)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's


def picture(seed, mode="RGB"):
    shades = np.random.default_rng(seed).integers(0, 256, (60 + seed, 80, 3), dtype=np.uint8)
    return Image.fromarray(shades).convert(mode)


def words(model, inputs, count=3):
    with torch.no_grad():
        return model.generate(**inputs, max_new_tokens=count, do_sample=False)[:, -count:].tolist()


@EVERY
def test_a_batch_is_answered_as_its_rows_are(name):
    """Two pictures in one row and one in another, questions of different lengths."""
    model, processor = FAMILIES[name].model(), PROCESSORS[name]()
    a, b, c = map(picture, range(3))
    batch = prepare_batch(processor, [[a, b], [c]], ["w5", "w6 w7 w8"])
    assert batch["attention_mask"][:, -1].all()
    assert "labels" not in batch
    alone = [prepare(processor, [a, b], "w5"), prepare(processor, c, "w6 w7 w8")]
    assert words(model, batch) == [words(model, inputs)[0] for inputs in alone]


@EVERY
def test_a_row_may_show_nothing(name):
    model, processor = FAMILIES[name].model(), PROCESSORS[name]()
    mixed = words(model, prepare_batch(processor, [[picture(0)], []], ["w5 w6", "w5 w6"]))
    assert mixed[0] == words(model, prepare(processor, picture(0), "w5 w6"))[0]
    if name not in SEES_ONLY:
        assert mixed[1] == words(model, prepare(processor, None, "w5 w6"))[0]


@pytest.mark.parametrize("name", sorted(SEES_ONLY))
def test_a_model_that_answers_about_pictures_only_says_so(name):
    with pytest.raises(PrumergeError, match="this model answers about pictures only; show it one"):
        prepare(PROCESSORS[name](), None, "w5")


@pytest.mark.parametrize("name", ["Blip2", "InstructBlip"])
def test_one_picture_is_laid_out_as_the_processors_of_queries_do(name):
    processor = PROCESSORS[name]()
    prompts = ["Question: w5 Answer:", "Question: w6 w7 w8 Answer:"]
    pictures = [picture(0), picture(1)]
    expected = processor(
        images=pictures, text=prompts, padding=True, return_tensors="pt", padding_side="left"
    )
    found = prepare_batch(processor, [[one] for one in pictures], ["w5", "w6 w7 w8"])
    assert found.keys() == expected.keys()
    for key, values in found.items():
        if not key.startswith("qformer"):  # which is padded on its other side
            assert torch.equal(values, expected[key])


@EVERY
def test_pictures_of_any_mode_are_shown(name):
    processor = PROCESSORS[name]()
    for mode in ("L", "RGBA", "CMYK", "P", "I;16"):
        shown = picture(0).convert("L").convert("I;16") if mode == "I;16" else picture(0, mode)
        assert "pixel_values" in prepare(processor, shown, "w5")


@EVERY
def test_a_question_that_holds_a_placeholder_is_refused_in_one_sentence(name):
    processor = PROCESSORS[name]()
    with pytest.raises(
        PrumergeError, match=r"the question holds '<.*>', which this model reads as a picture"
    ):
        prepare(processor, picture(0), f"is {processor.image_token} a word?")
    with pytest.raises(PrumergeError, match="which this model reads as a picture"):
        prepare(processor, None, f"is {processor.image_token} a word?")


def test_every_word_that_stands_for_a_picture_is_a_placeholder():
    for word in ("<boi>", "<eoi>", "<image>"):
        with pytest.raises(PrumergeError, match=word):
            question_prompt(PROCESSORS["Gemma3"](), f"w5 {word}")
    assert "<image>" in question_prompt(PROCESSORS["Qwen2VL"](), "is <image> a word?")  # its own is another


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("media", "questions", "sentence"),
    [
        ([["a.png"]], ["w5"], r"a picture of Pillow's is needed, not str; prumerge.open_image\(\) reads one"),
        ([[np.zeros((20, 20, 3))]], ["w5"], "a picture of Pillow's is needed, not ndarray"),
        ([[Image.new("RGB", (0, 5))]], ["w5"], "the picture has no pixels"),
        ([[Image.new("RGB", (20, 20))]], [5], "a question is text, not int"),
        ([[], []], ["w5"], "each question needs a list of its pictures: there are 2 lists and 1 questions"),
        ([[]], "w5", "each question needs a list of its pictures"),
        ([], [], "there is no question to prepare"),
    ],
)
def test_what_cannot_be_prepared_is_refused(media, questions, sentence):
    with pytest.raises(PrumergeError, match=sentence):
        prepare_batch(PROCESSORS["Llava"](), media, questions)


def test_a_clip_without_frames_is_refused():
    with pytest.raises(PrumergeError, match="the clip has no frames"):
        prepare(PROCESSORS["Llava"](), [], "what moves?")
