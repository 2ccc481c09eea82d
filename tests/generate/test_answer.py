"""One question to every family: the untouched model, every token kept, and few tokens."""

from types import SimpleNamespace

import pytest
import torch
from builders import IMAGE
from families import FAMILIES, rows_of
from PIL import Image
from transformers import BatchFeature

import prumerge
from prumerge.generate.answer import answer

PICTURE = Image.new("RGB", (56, 56))


class Written:
    """In place of a processor: the family's own prompt whatever is asked, and ids as words."""

    chat_template = None
    tokenizer = SimpleNamespace(special_tokens_map={}, bos_token=None)

    def __init__(self, family):
        self.rows = lambda: family.prompt(*rows_of(family)[:1])

    def __call__(self, **_):
        return BatchFeature(self.rows())

    def decode(self, ids, **_):
        return " ".join(map(str, ids.tolist()))


@pytest.fixture(params=FAMILIES)
def case(request):
    family = FAMILIES[request.param]
    return family.model(), Written(family)


def asked(model, processor, reducer=None):
    method = None if reducer is None else prumerge.make(reducer)
    return answer(model, processor, PICTURE, "", method, max_new_tokens=4)


def generated(model, prompt):
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    return " ".join(map(str, ids[0, prompt["input_ids"].shape[1] :].tolist()))


def test_untouched_it_says_what_the_model_generates(case):
    model, processor = case
    found = asked(model, processor)
    assert found.answer == generated(model, processor.rows()) == asked(model, processor, "none").answer
    assert found.visual_tokens == int((processor.rows()["input_ids"] == IMAGE).sum())
    assert (found.method, found.answer_tokens) == ("untouched", 4)
    assert min(found.encode_ms, found.prefill_ms, found.decode_ms) > 0


def test_with_few_tokens_it_says_what_the_shorter_prompt_generates(case):
    model, processor = case
    found = asked(model, processor, "topk:keep=3")
    with torch.no_grad():
        shorter = prumerge.reduce(model, processor.rows(), "topk:keep=3")
        kept = prumerge.select(model, processor.rows(), "topk:keep=3")
    between = sum(len(tokens.separators.at) for tokens, _ in kept if tokens.separators)
    assert found.answer == generated(model, shorter)
    assert found.visual_tokens == sum(len(reduction) for _, reduction in kept) + between
    assert found.prompt_tokens == shorter["input_ids"].shape[1] < processor.rows()["input_ids"].shape[1]
