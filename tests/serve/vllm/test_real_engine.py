"""In front of vLLM itself, which `make test-vllm` installs: answers are those of `prumerge answer`."""

import os

import httpx2
import openai
import pytest
from serving import (
    GUARD,
    HTTP,
    ask_http,
    check_at_once,
    check_guarded,
    content,
    question,
    said_of,
    said_under_guard,
    serving,
    start,
    until,
)

import prumerge
from prumerge.errors import PrumergeError
from prumerge.generate.guarded import guarded
from prumerge.serve.export import export_language_model
from prumerge.tiny import samples

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif("VLLM_ENV" not in os.environ, reason="make test-vllm says where vLLM is"),
]

ROWS = [
    (1, "prumerge"),
    (2, "prumerge"),
    (1, "none"),
    (3, "prumerge_plus"),
    (1, "pool:keep=36"),
    (1, "cdpruner:keep=24"),
    (2, "medoids:keep=100"),
    (1, "tome:r=40+prumerge:keep=36"),
]
METHODS = ["prumerge_plus", "pool", "cdpruner", "medoids", "tome"]


@pytest.fixture(scope="module")
def running_vllm(tiny, tmp_path_factory):
    from engines import engine, started

    folder = tmp_path_factory.mktemp("lm")
    model, processor = tiny
    export_language_model(model, processor, folder)
    with started(engine(folder)) as (found,):
        yield found


@pytest.fixture(scope="module")
def fronted(running_vllm):
    """A front of vLLM with a model of its own, which lets go of its layers."""
    with serving(*prumerge.load("tiny"), engine=running_vllm.url, reducers=METHODS) as found:
        yield found


@pytest.fixture
def asks():
    sample = samples()[0]
    return {"model": "tiny", "messages": [question(sample.questions[0].text, sample.path.read_bytes())]}


def test_64_at_once_are_answered_as_the_command_line_answers(fronted, tiny):
    check_at_once(fronted.client, said_of(ROWS, *tiny), 64)


def test_under_a_guard_many_at_once_are_answered_as_one_by_one(running_vllm, tiny):
    with serving(*prumerge.load("tiny"), engine=running_vllm.url, guard=GUARD) as server:
        model, processor = tiny
        check_guarded(server.client, said_under_guard(guarded(model, processor, GUARD)))


def test_fields_of_vllm_reach_it(fronted, asks):
    found = fronted.client.chat.completions.create(
        **asks, logprobs=True, top_logprobs=3, seed=1, extra_body={"allowed_token_ids": None}
    )
    (first, *_) = found.choices[0].logprobs.content
    assert len(first.top_logprobs) == 3
    whole = found.choices[0].message.content
    cut, _ = content(fronted.client, asks["messages"], stop=[whole[1:3]])
    assert cut == whole[:1]
    schema = {"name": "choice", "schema": {"type": "string", "enum": ["north", "south"]}}
    form = {"type": "json_schema", "json_schema": schema}
    formed, _ = content(fronted.client, asks["messages"], response_format=form)
    assert formed.replace(" ", "") in ('"north"', '"south"')


def test_what_vllm_refuses_is_a_sentence(fronted, asks):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    with pytest.raises(openai.BadRequestError, match="the engine refuses this"):
        fronted.client.chat.completions.create(**asks, tools=tools, tool_choice="auto")


def running_requests(engine):
    text = HTTP.get(f"{engine.url}/metrics").text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(("vllm:num_requests_running{", "vllm:num_requests_waiting{"))
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_request_in_vllm(fronted, running_vllm, asks, stream):
    request = {**asks, "stream": stream, "max_tokens": 1000, "ignore_eos": True}
    if stream:
        with HTTP.stream("POST", f"{fronted.url}/v1/chat/completions", json=request) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx2.TimeoutException):
            ask_http(fronted, request, timeout=1.0)
    until(lambda: fronted.front.held == 0, 2)
    until(lambda: running_requests(running_vllm) == 0, 2)


def test_another_model_is_found_at_start(running_vllm, small):
    with pytest.raises(PrumergeError, match=r"hidden_size .* start vLLM with the folder"):
        start(prumerge.load(small), running_vllm.url)
    changed = prumerge.load("tiny")
    changed[0].lm_head.weight.data.neg_()
    with pytest.raises(PrumergeError, match="answers as another model would"):
        start(changed, running_vllm.url)
