"""A processor's output, read once: what it shows, where its padding is, what is said of one that is none."""

import copy

import pytest
import torch
from builders import BOS, IMAGE, PAD, PICTURE, answer, llava, pictures, prompt
from PIL import Image
from steps import logits_of

import prumerge
from prumerge.errors import PrumergeError
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt, _on_cpu

pytestmark = pytest.mark.usefixtures("unchecked")
ROWS = [[5, PICTURE, 6, 7], [5, PICTURE, 6, 7, 8, 9, 10, 11]]
SPEC = "topk:keep=3"


# padding


@pytest.mark.parametrize("entrance", ["reduce", "attach"])
@pytest.mark.parametrize("spec", ["none", SPEC, "prumerge"])
def test_padding_is_inferred_as_generate_does(model, spec, entrance):
    inputs = prompt(*ROWS)
    bare = {name: value for name, value in inputs.items() if name != "attention_mask"}
    model.generation_config.pad_token_id = PAD

    def said(given):
        if entrance == "attach":
            with prumerge.attach(model, spec):
                return answer(model, given)
        with torch.no_grad():
            shorter = prumerge.reduce(model, given, spec)
            length = shorter["input_ids"].shape[1]
            return model.generate(**shorter, max_new_tokens=4, do_sample=False)[:, length:]

    assert torch.equal(said(bare), said(inputs))


def test_a_token_that_ends_answers_too_is_no_padding(model):
    inputs = prompt(*ROWS)
    del inputs["attention_mask"]
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = PAD
    assert Prompt.read(model, inputs).mask.all()


def test_forward_takes_a_prompt_without_a_mask_as_unpadded(model):
    inputs = prompt(*ROWS)
    del inputs["attention_mask"]
    with prumerge.attach(model, "none"):
        attached = logits_of(model, inputs)
    assert torch.equal(attached, logits_of(model, inputs))


@pytest.mark.parametrize("spec", ["none", SPEC, "prumerge"])
def test_prompts_padded_left_with_answers_padded_right_are_each_rows_own(model, spec):
    rows, answers = [[5, PICTURE, 6, 7], [5, PICTURE, 6, PICTURE, 7, 8]], [[10, 11, 12], [14]]

    def with_answers(inputs, said):
        most = max(map(len, said))
        ids = torch.tensor([each + [PAD] * (most - len(each)) for each in said])
        mask = torch.tensor([[1] * len(each) + [0] * (most - len(each)) for each in said])
        return {
            **inputs,
            "input_ids": torch.cat([inputs["input_ids"], ids], 1),
            "attention_mask": torch.cat([inputs["attention_mask"], mask], 1),
        }

    together = with_answers(prompt(*rows), answers)
    with torch.no_grad(), prumerge.attach(model, spec):
        whole = model(**together).logits[:, -4:-1]
        kept = model(**together, logits_to_keep=4).logits[:, :-1]
        for row in range(2):
            alone = with_answers(prompt(rows[row]), [answers[row]])
            alone["pixel_values"] = together["pixel_values"][:1] if row == 0 else together["pixel_values"][1:]
            count = len(answers[row])
            expected = model(**alone).logits[0, -count - 1 : -1]
            torch.testing.assert_close(whole[row, :count], expected, atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(kept[row, :count], expected, atol=2e-5, rtol=1e-4)


# what is no prompt


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: Image.new("RGB", (56, 56)), "inputs are what a processor returns .* not Image"),
        (lambda x: None, "inputs are what a processor returns .* not NoneType"),
        (lambda x: {**x, "input_ids": x["input_ids"].tolist()}, "input_ids is a list, not a tensor; .*'pt'"),
        (lambda x: {**x, "pixel_values": [1.0]}, "pixel_values is a list, not a tensor"),
        (
            lambda x: {**x, "attention_mask": x["attention_mask"][:, 1:]},
            r"attention_mask is \(1, \d+\), but the prompt is",
        ),
        (lambda x: {**x, "attention_mask": [[1]]}, "attention_mask is list, but the prompt is"),
        (lambda x: {**x, "pixel_values": None}, "has 16 image placeholders, but no pictures came with it"),
    ],
)
def test_what_is_no_processors_output_is_said_in_one_sentence(model, change, sentence):
    with pytest.raises(PrumergeError, match=sentence) as error:
        prumerge.reduce(model, change(prompt([5, PICTURE, 6])), SPEC)
    assert "\n" not in str(error.value)


def test_placeholders_without_pictures_are_noticed_by_an_attached_model_too(model):
    inputs = prompt([5, PICTURE, 6])
    del inputs["pixel_values"]
    with prumerge.attach(model, SPEC), pytest.raises(PrumergeError, match="but no pictures came with it"):
        model.generate(**inputs, max_new_tokens=2)


def test_placeholders_of_one_row_are_not_anothers(model):
    ids = torch.tensor([[BOS] + [IMAGE] * 20 + [5] * 3, [BOS] + [IMAGE] * 12 + [5] * 11])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pictures(2)}
    with pytest.raises(
        PrumergeError, match="row 0 of the batch has 20 placeholders, which are no whole number"
    ):
        prumerge.reduce(model, inputs, SPEC)


# options


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"positions": "median of all"}, PrumergeError, "positions are auto, compact, original, median, not"),
        ({"separators": "some"}, PrumergeError, "separators are keep, drop, remake, not 'some'"),
        ({"relevance": "word"}, PrumergeError, "relevance is a function of a prompt's pictures"),
        ({"position": "compact"}, TypeError, "there is no option 'position'; there are: positions, "),
    ],
)
@pytest.mark.parametrize("entrance", [prumerge.reduce, prumerge.select, prumerge.attach])
def test_a_wrong_option_is_refused_by_every_entrance(model, entrance, options, kind, sentence):
    given = (model, SPEC) if entrance is prumerge.attach else (model, prompt([5, PICTURE]), SPEC)
    with pytest.raises(kind, match=sentence):
        entrance(*given, **options)


def test_options_may_come_as_one_value(model):
    inputs, options = prompt([5, PICTURE, 6]), Options(positions="original")
    with torch.no_grad():
        one = prumerge.reduce(model, inputs, SPEC, options)
        other = prumerge.reduce(model, inputs, SPEC, positions="original")
    assert torch.equal(one["position_ids"], other["position_ids"])
    assert options.changed() == {"positions": "original"}


def test_reducing_changes_nothing_on_the_model(model):
    def state():
        return [(name, id(value)) for module in model.modules() for name, value in vars(module).items()]

    inputs = prompt(*ROWS)
    before, given = state(), copy.deepcopy(inputs)
    with torch.no_grad():
        prumerge.reduce(model, inputs, SPEC)
        prumerge.select(model, inputs, "prumerge")
    assert state() == before
    assert all(torch.equal(inputs[name], value) for name, value in given.items())


def test_a_prompt_is_read_once(monkeypatch):
    model, inputs, reads = llava(), prompt(*ROWS), []

    def note(*given):
        reads.append(given)
        return _on_cpu(*given)

    monkeypatch.setattr("prumerge.pipeline.prompt._on_cpu", note)
    with torch.no_grad():
        prumerge.reduce(model, inputs, "cdpruner:keep=3")
    assert len(reads) == 1


def test_options_that_a_file_keeps_are_as_they_were_given():
    """`auto` stays undecided in a guard: families with positions in time and space take no other word."""
    options = Options(size_bias=True)
    assert options.placing == "original"
    assert options.changed() == {"size_bias": True}
