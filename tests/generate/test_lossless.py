"""Drafts over few visual tokens, verified over all: the untouched model's own answer on every family."""

from functools import cache

import pytest
import torch
from families import FAMILIES
from noise import noise
from processors import PROCESSORS
from scipy.stats import chisquare

import prumerge
from prumerge.errors import PrumergeError
from prumerge.loading.prompts import prepare, prepare_batch
from prumerge.tiny.scenes import scene

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
REFUSED = {
    "positions": "positions that a draft cannot go on from",
    "slides": "cache slides or is of another kind",
    "apart": "do not keep the prompt in the cache",
}
WORDS = 14


@cache
def loaded(name):
    return FAMILIES[name].model(), PROCESSORS[name]()


@cache
def asked(name, number=0):
    """A prompt about a picture of noise, another one for each number."""
    picture = noise((80, 60), seed=number)
    return prepare(loaded(name)[1], picture, "w5 w7")


def greedy(model, inputs, count):
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=count, do_sample=False)
    return generated[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", PROCESSORS)
def test_it_says_what_the_untouched_model_says_or_why_it_cannot(name):
    model = loaded(name)[0]
    for inputs in (asked(name, number) for number in range(2)):
        try:
            found = prumerge.lossless(model, inputs, "spatial:keep=2", max_new_tokens=WORDS)
        except PrumergeError as refusal:
            assert any(told in str(refusal) for told in REFUSED.values())
            return
        assert found.tokens.tolist() == greedy(model, inputs, WORDS)
        assert found.accepted <= found.drafted
        assert found.passes <= len(found.tokens) - 1 + (len(found.tokens) == 1)


def test_most_families_can():
    able = 0
    for name in PROCESSORS:
        try:
            prumerge.lossless(loaded(name)[0], asked(name), "spatial:keep=2", max_new_tokens=2)
            able += 1
        except PrumergeError:
            pass
    assert able >= len(PROCESSORS) // 2


@pytest.mark.parametrize("draft", [1, 2, 7])
@pytest.mark.parametrize("keep", [1, 9, "all"])
def test_however_many_are_drafted_over_however_few_tokens(draft, keep):
    model = loaded("Llava")[0]
    spec = "none" if keep == "all" else f"topk:keep={min(keep, 4)}"
    found = prumerge.lossless(model, asked("Llava"), spec, max_new_tokens=WORDS, draft=draft)
    assert found.tokens.tolist() == greedy(model, asked("Llava"), WORDS)
    if keep == "all":  # the draft reads what the model reads
        assert found.accepted == found.drafted
        assert found.passes == -(-(len(found.tokens) - 1) // (draft + 1))


def test_a_draft_attends_to_each_token_in_proportion_to_the_patches_it_stands_for(monkeypatch):
    model, inputs, masks = loaded("Llava")[0], asked("Llava"), []
    original = model.forward

    def forward(**given):
        if "position_ids" in given:
            masks.append(given.get("attention_mask"))
        return original(**given)

    monkeypatch.setattr(model, "forward", forward)
    patches = int((inputs["input_ids"] == model.config.image_token_id).sum())
    words = inputs["input_ids"].shape[1] - patches
    found = prumerge.lossless(model, inputs, "spatial:keep=2", max_new_tokens=WORDS)
    assert len(masks) == found.drafted
    for mask in masks:
        sizes = mask.exp().flatten()
        answer = len(sizes) - words - 2  # what is said so far counts as words do
        assert sizes.sum().item() == pytest.approx(words + patches + answer)
        assert (sizes > 1.5).sum() == 2
    masks.clear()
    plain = prumerge.lossless(model, inputs, "spatial:keep=2", max_new_tokens=WORDS, sizes=False)
    assert plain.tokens.tolist() == found.tokens.tolist()
    assert masks == [None] * plain.drafted


def test_what_ends_an_answer_ends_it_inside_a_draft_too():
    model, processor = prumerge.load("tiny")
    inputs = prepare(processor, scene(9_800_013).image, "which shape is blue?")
    found = prumerge.lossless(model, inputs, "spatial:keep=36", max_new_tokens=8, draft=6)
    assert found.tokens.tolist() == greedy(model, inputs, 8)
    assert found.tokens[-1] == model.generation_config.eos_token_id


def test_at_a_temperature_answers_come_from_the_models_own_distribution():
    """The second token is the first that is drafted; its draft, over one visual token, is another's."""
    (model, _), inputs = loaded("Llava"), asked("Llava")
    with torch.inference_mode():
        temperature = 0.3 * float(model(**inputs).logits[0, -1].std())
        first = int(model(**inputs).logits[0, -1].argmax())
        ids = torch.cat([inputs["input_ids"], torch.tensor([[first]])], 1)
        longer = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = (model(**longer).logits[0, -1].float() / temperature).softmax(-1)
    counts = torch.zeros_like(expected)
    for seed in range(150):
        found = prumerge.lossless(
            model, inputs, "topk:keep=1", max_new_tokens=2, temperature=temperature,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        if found.tokens[0] == first:
            counts[found.tokens[1]] += 1
    likely = expected.topk(3).indices
    seen, wanted = (
        torch.cat([each[likely], (each.sum() - each[likely].sum())[None]]).double()
        for each in (counts, expected)
    )
    assert counts.sum() > 40
    assert chisquare(seen.numpy(), (wanted / wanted.sum() * seen.sum()).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("reducer", "told"), [("fastv:keep=2", "inside the model"), ("tome:r=1", "inside the model")]
)
def test_drafts_are_made_by_methods_before_the_language_model(reducer, told):
    with pytest.raises(PrumergeError, match=told):
        prumerge.lossless(loaded("Llava")[0], asked("Llava"), reducer)


def test_one_prompt_at_a_time():
    model, processor = loaded("Llava")
    picture = noise((80, 60))
    with pytest.raises(PrumergeError, match="one prompt at a time"):
        prumerge.lossless(model, prepare_batch(processor, [[picture]] * 2, ["w5", "w7"]), "topk:keep=2")
