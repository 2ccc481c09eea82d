"""A small random checkpoint of every family on disk, with its own kind of processor: loaded by its path and
asked about a picture, without torchvision."""

import pytest
import transformers as hf
from families import FAMILIES
from noise import noise
from PIL import Image
from processors import PROCESSORS, qwen, square, tokenizer
from transformers.models.smolvlm import processing_smolvlm

import prumerge
from prumerge import catalogue
from prumerge.generate.answer import answer

# Whose processors need more packages than Transformers does: torchvision, num2words.
MORE = {"mistral3", "smolvlm"}


def test_every_family_has_a_checkpoint():
    assert {FAMILIES[name].name for name in PROCESSORS} | MORE == set(catalogue.families())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's processor
@pytest.mark.parametrize("name", PROCESSORS)
def test_a_checkpoint_answers_about_a_picture(tmp_path, name):
    original = FAMILIES[name].model()
    original.save_pretrained(tmp_path)
    PROCESSORS[name]().save_pretrained(tmp_path)
    model, processor = prumerge.load(str(tmp_path))
    picture = noise((80, 60))
    untouched, kept, reduced = (
        answer(model, processor, picture, "w5 w7", method and prumerge.make(method), max_new_tokens=3)
        for method in (None, "none", "topk:keep=3")
    )
    before = answer(original, processor, picture, "w5 w7", max_new_tokens=3)
    assert untouched.answer == before.answer == kept.answer
    assert untouched.visual_tokens == kept.visual_tokens > reduced.visual_tokens
    gone = untouched.visual_tokens - reduced.visual_tokens
    assert untouched.prompt_tokens - reduced.prompt_tokens == gone
    assert reduced.answer_tokens > 0


@pytest.mark.parametrize("name", ["Mistral3", "SmolVLM"])
def test_a_package_that_a_processor_needs_is_named(tmp_path, name, monkeypatch):
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    FAMILIES[name].model().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    square("siglip").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a package is missing: .*(Torchvision|num2words)"):
        prumerge.load(str(tmp_path))


def test_videos_are_not_taken_without_torchvision():
    with pytest.raises(ValueError, match="pass the frames as pictures"):
        qwen(hf.Qwen2VLProcessor)(videos=[[Image.new("RGB", (56, 56))]], text="w5 <|video_pad|>")
