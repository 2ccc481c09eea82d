"""The engine behind a URL: a stub that reads embeddings as vLLM does, and fails as vLLM does."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import openai
import pytest
from families import FAMILIES
from noise import noise
from processors import PROCESSORS
from serving import HTTP, Engine, ask_http, png, question, running, serving, start, until

import prumerge
from prumerge.errors import PrumergeError
from prumerge.pipeline.options import Options
from prumerge.serve import upstream
from prumerge.serve.export import export_language_model
from prumerge.serve.travel import check_travels
from prumerge.tiny import samples

FILES = [png(noise((50, 40), spread=number)) for number in (10, 90)]


@pytest.fixture(scope="module")
def started(small, running_engine):
    with serving(*prumerge.load(small), engine=running_engine.url, reducers=["pool", "fastv"]) as server:
        yield server


@pytest.fixture
def fronted(started, engine, monkeypatch):
    """A front of the engine."""
    monkeypatch.setattr(upstream, "PAUSE", 0)
    return started


def ask(server, *, stream=False, files=FILES[:1], text="is there a star?", **more):
    options = {"model": "tiny", "messages": [question(text, *files)], "max_tokens": 6, **more}
    found = server.client.chat.completions.create(stream=stream, **options)
    if not stream:
        return found.choices[0].message.content
    return "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)


def test_it_is_answered_as_by_the_own_engine(server, tmp_path):
    model, processor = prumerge.load("tiny")
    export_language_model(model, processor, tmp_path)
    sample = samples()[0]
    file, texts = sample.path.read_bytes(), [one.text for one in sample.questions]
    kinds = [
        {"stream": stream, "files": [file] * pictures, "text": text, "extra_body": {"reducer": spec}}
        for stream, pictures, spec in ((False, 0, "none"), (False, 1, "prumerge"), (True, 2, "pool:keep=9"))
        for text in texts
    ]
    expected = [ask(server, **kind) for kind in kinds]
    with (
        running(Engine(tmp_path).app) as url,
        serving(model, processor, engine=url, reducers=["pool"]) as fronted,
        ThreadPoolExecutor(12) as pool,
    ):
        assert list(pool.map(lambda kind: ask(fronted, **kind), kinds)) == expected
    assert len(set(expected)) > 2


def test_a_stream_ends_in_what_was_counted(fronted):
    chunks = fronted.client.chat.completions.create(
        model="tiny",
        messages=[question("is there a star?", FILES[0])],
        max_tokens=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    usage = list(chunks)[-1].usage
    assert usage.completion_tokens == 2
    assert usage.prompt_tokens_details.visual_tokens > usage.prompt_tokens_details.visual_tokens_kept


def test_what_the_front_does_not_know_goes_on(fronted, engine):
    more = {
        "logprobs": True,
        "response_format": {"type": "json_object"},
        "seed": 3,
        "stop": ["x"],
        "extra_body": {"repetition_penalty": 1.1},
    }
    ask(fronted, **more)
    sent = engine.bodies[-1]
    known = {name: sent[name] for name in ("logprobs", "response_format", "seed", "stop")}
    assert known == {name: more[name] for name in known}
    assert (sent["repetition_penalty"], sent["model"], sent["temperature"]) == (1.1, "the-lm", 0)


def test_an_answer_is_no_longer_than_fits(fronted, engine, monkeypatch):
    counted = fronted.client.chat.completions.create(
        model="tiny", messages=[question("is there a star?", FILES[0])], max_tokens=2
    ).usage
    monkeypatch.setattr(fronted.front.engine, "context", counted.prompt_tokens + 3)
    ask(fronted, max_tokens=10**6)
    assert engine.bodies[-1]["max_tokens"] == 3
    monkeypatch.setattr(fronted.front.engine, "context", counted.prompt_tokens)
    with pytest.raises(openai.BadRequestError, match="send less"):
        ask(fronted)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("faults", [["status"], ["status", "event"], ["event"]])
def test_it_is_sent_again_while_no_token_came(fronted, engine, faults, stream):
    said, retries = ask(fronted, stream=stream), fronted.front.metrics.retries._value
    before = retries.get()
    engine.faults = [fault if stream else "status" for fault in faults]
    assert ask(fronted, stream=stream) == said
    assert retries.get() == before + len(faults)


def test_it_is_sent_three_times_at_most(fronted, engine):
    engine.bodies.clear()
    engine.faults = ["status"] * 3
    with pytest.raises(openai.APIStatusError, match="no engine answers") as refused:
        ask(fronted)
    assert (refused.value.status_code, len(engine.bodies)) == (502, 3)


def test_it_is_not_sent_again_after_a_token(fronted, engine):
    engine.faults = ["cut"]
    with pytest.raises(openai.APIError, match="the engine was lost while it answered"):
        ask(fronted, stream=True)
    assert len(engine.bodies) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_refused(fronted, engine, stream):
    engine.faults = ["refusal"]
    with pytest.raises(openai.BadRequestError, match="tools need a parser"):
        ask(fronted, stream=stream)
    assert len(engine.bodies) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_left_upstream(fronted, engine, stream):
    engine.faults = ["slow"]
    request = {"model": "tiny", "messages": [question("what?", FILES[0])], "stream": stream}
    with pytest.raises(httpx2.TimeoutException):
        ask_http(fronted, request, timeout=0.4)
    until(lambda: engine.aborted == 1, 2)
    assert engine.running == 0


@pytest.mark.parametrize("name", ["chat_template", "prompt_embeds", "mm_processor_kwargs", "echo"])
def test_what_would_change_the_prompt_is_not_taken(fronted, name):
    with pytest.raises(openai.BadRequestError, match="not taken from clients"):
        ask(fronted, extra_body={name: "x"})


def test_a_method_inside_the_language_model_is_refused(fronted):
    with pytest.raises(openai.BadRequestError, match="inside the language model"):
        ask(fronted, extra_body={"reducer": "fastv"})


def test_it_is_ready_while_the_engine_is(small, exported):
    with ExitStack() as stack:
        with running(Engine(exported).app) as url:
            server = stack.enter_context(serving(*prumerge.load(small), engine=url))
            assert HTTP.get(f"{server.url}/ready").status_code == 200
        assert HTTP.get(f"{server.url}/ready").status_code == 503
        assert HTTP.get(f"{server.url}/health").status_code == 200


# what is looked at before it starts


def test_an_engine_that_is_not_there_is_named(untrained):
    with pytest.raises(
        PrumergeError, match=r"no engine answers at http://127.0.0.1:9 .* start one: vllm serve"
    ):
        start(untrained, "http://127.0.0.1:9")


def test_an_engine_without_embeddings_is_named(untrained, engine):
    engine.faults = ["refusal"]
    with pytest.raises(PrumergeError, match=r"takes no embeddings of this model .* --enable-prompt-embeds"):
        start(untrained, engine.url)


def test_an_engine_with_another_chat_template_is_found(untrained, engine, monkeypatch):
    real = engine._answer
    monkeypatch.setattr(engine, "_answer", lambda body: (real(body)[0] + 4, *real(body)[1:]))
    with pytest.raises(PrumergeError, match="another chat template; serve the folder"):
        start(untrained, engine.url)


def test_an_engine_with_other_weights_is_found(small, engine):
    model, processor = prumerge.load(small)
    model.lm_head.weight.data.neg_()
    with pytest.raises(PrumergeError, match="answers as another model would"):
        start((model, processor), engine.url)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"reducer": "fastv"}, "inside the language model"),
        ({"options": Options(positions="original")}, "leave --positions out"),
    ],
)
def test_what_an_engine_cannot_do_is_said_at_start(untrained, engine, settings, match):
    with pytest.raises(PrumergeError, match=match):
        start(untrained, engine.url, **settings)


def test_sizes_on_attention_are_said_to_be_left_out(small, engine, logged):
    start(prumerge.load(small), engine.url, options=Options(size_bias=True))
    assert "--size-bias is left out" in logged.getvalue()


PROMPTS = sorted(FAMILIES.keys() & PROCESSORS.keys())
STAY = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "paligemma"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", PROMPTS)
def test_families_that_embeddings_do_not_carry_are_served_here(name):
    model, processor = FAMILIES[name].model(), PROCESSORS[name]()
    if model.config.model_type in STAY or model.config.text_config.is_encoder_decoder:
        with pytest.raises(PrumergeError, match="prumerge serve without --engine"):
            check_travels(model, processor)
    else:
        check_travels(model, processor)
