"""BLIP-2 and InstructBLIP with an encoder-decoder language model (T5), which does not repeat the prompt."""

from functools import cache

import pytest
import torch
import transformers as hf
from asking import reduced
from builders import IMAGE, PAD, VOCABULARY
from families import FAMILIES, awake, rows_of

import prumerge


@cache
def with_t5(name):
    family = FAMILIES[name]
    config = family.config()
    t5 = hf.T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        decoder_start_token_id=PAD,
        pad_token_id=PAD,
        eos_token_id=None,
        dropout_rate=0.0,
        initializer_factor=3.0,
    )
    parts = {
        "vision_config": config.vision_config.to_dict(),
        "qformer_config": config.qformer_config.to_dict(),
        "text_config": t5.to_dict(),
    }
    torch.manual_seed(0)
    kind = type(config)(**parts, num_query_tokens=8, image_token_index=IMAGE)
    model = family.kind._from_config(kind).eval()
    awake(model)
    with torch.no_grad():
        model.query_tokens.normal_()
    return model


@pytest.fixture(params=["Blip2", "InstructBlip"])
def asked(request):
    family = FAMILIES[request.param]
    return with_t5(request.param), family.prompt(*rows_of(family))


def said(model, inputs, **options):
    return model.generate(**inputs, **{"max_new_tokens": 6, "do_sample": False, **options})


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"max_new_tokens": None, "max_length": 5}], ids=str
)
def test_none_says_what_the_untouched_model_says(asked, options):
    model, inputs = asked
    expected = said(model, inputs, **options)
    assert torch.equal(said(model, reduced(model, inputs, "none"), **options), expected)
    with prumerge.attach(model, "none"):
        assert torch.equal(said(model, inputs, **options), expected)


def test_an_attached_method_says_what_the_shorter_prompt_says(asked):
    model, inputs = asked
    expected = said(model, reduced(model, inputs, "topk:keep=3"))
    with prumerge.attach(model, "topk:keep=3") as attached:
        assert torch.equal(said(model, inputs), expected)
    assert [after for _, after in attached.tokens] == [3] * len(attached.tokens)


@pytest.mark.parametrize("shape", ["shorter", "as long as the prompt"])
def test_labels_are_those_of_the_answer_and_stay_whole(asked, shape):
    model, inputs = asked
    length = 3 if shape == "shorter" else inputs["input_ids"].shape[1]
    labels = torch.arange(5, 5 + length).repeat(len(inputs["input_ids"]), 1)
    assert torch.equal(reduced(model, {**inputs, "labels": labels}, "topk:keep=3")["labels"], labels)
    loss = model(**inputs, labels=labels).loss
    with prumerge.attach(model, "none"):
        torch.testing.assert_close(model(**inputs, labels=labels).loss, loss)
