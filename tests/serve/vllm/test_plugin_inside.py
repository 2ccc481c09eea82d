"""vLLM with prumerge's plugin answers plain picture requests as `prumerge answer` does."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import HTTP, png, question

from prumerge.generate.answer import answer
from prumerge.serve.export import export_whole
from prumerge.tiny.scenes import scene

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif("VLLM_ENV" not in os.environ, reason="make test-vllm says where vLLM is"),
]

DEFAULT, METHODS = "prumerge", [None, "none", "pool:keep=36", "medoids:keep=50"]
TEXTS = ["is there a heart?", "which shape is blue?"]


@pytest.fixture(scope="module")
def running_vllm(tiny, tmp_path_factory):
    from engines import engine, started

    folder = tmp_path_factory.mktemp("whole")
    model, processor = tiny
    export_whole(model, processor, folder)
    named = ("--mm-processor-kwargs", f'{{"reducer": "{DEFAULT}"}}', "--trust-request-mm-kwargs")
    with started(engine(folder, *named, "--enable-prompt-tokens-details")) as (found,):
        yield found


def ask(engine, images, text, reducer):
    body = {
        "model": "lm",
        "messages": [question(text, *map(png, images))],
        "max_tokens": 12,
        "temperature": 0,
    }
    if reducer is not None:
        body["mm_processor_kwargs"] = {"reducer": reducer}
    return HTTP.post(f"{engine.url}/v1/chat/completions", json=body, timeout=120)


def test_many_at_once_of_different_counts_are_answered_as_the_command_line_answers(running_vllm, tiny):
    shown = [scene(9_800_013 + number).image for number in range(4)]
    asked = [([image], text, method) for image in shown for text in TEXTS for method in METHODS]
    asked.append((shown[:2], TEXTS[0], None))
    with ThreadPoolExecutor(len(asked)) as pool:
        found = [one.json() for one in pool.map(lambda one: ask(running_vllm, *one), asked)]
    model, processor = tiny
    expected = [
        answer(model, processor, images, text, method or DEFAULT, clip=False, max_new_tokens=12)
        for images, text, method in asked
    ]
    assert [one["choices"][0]["message"]["content"].strip() for one in found] == [
        one.answer for one in expected
    ]
    assert [one["usage"]["prompt_tokens"] for one in found] == [one.prompt_tokens for one in expected]


def test_a_picture_is_remembered_by_its_method(running_vllm, tiny):
    image = scene(9_800_020).image
    for method, cached in (("none", False), ("none", True), ("medoids:keep=400", False)):
        usage = ask(running_vllm, [image], "is there a star?", method).json()["usage"]
        assert bool(usage["prompt_tokens_details"].get("cached_tokens", 0) > 128) == cached, method


@pytest.mark.parametrize(("reducer", "said"), [("magic", "no method"), ("fastv", "only look at a picture")])
def test_a_method_that_cannot_be_is_a_sentence(running_vllm, reducer, said):
    found = ask(running_vllm, [scene(9_800_020).image], "what?", reducer)
    assert found.status_code == 400
    assert said in found.json()["error"]["message"]
