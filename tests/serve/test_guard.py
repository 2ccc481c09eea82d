"""Answers under a guard, as `prumerge answer --guard` gives them, by either engine and many at once."""

import openai
import pytest
from serving import GUARD, Engine, check_guarded, content, png, question, running, said_under_guard, serving

import prumerge
from prumerge.errors import PrumergeError
from prumerge.generate.guarded import Guard, guarded
from prumerge.loading.fingerprint import fingerprint
from prumerge.serve.build import Settings, build
from prumerge.serve.export import export_language_model
from prumerge.tiny.scenes import scene

SHOWN, UNSURE = scene(9_800_013).image, "what does the sign say?"
"""A picture, and a question that goes to the untouched model."""


@pytest.fixture(scope="module", params=["local", "vllm"])
def server(request, tiny, tmp_path_factory):
    """A server under the guard, with its own engine and in front of another."""
    if request.param == "local":
        with serving(*tiny, guard=GUARD, reducers=["pool"]) as found:
            yield found
    else:
        folder = tmp_path_factory.mktemp("lm")
        model, processor = prumerge.load("tiny")
        export_language_model(model, processor, folder)
        with (
            running(Engine(folder).app) as url,
            serving(model, processor, engine=url, guard=GUARD, reducers=["pool"]) as found,
        ):
            yield found


@pytest.fixture(scope="module")
def one_by_one(tiny):
    model, processor = tiny
    return said_under_guard(guarded(model, processor, GUARD))


def test_many_at_once_are_answered_as_one_by_one(server, one_by_one):
    check_guarded(server.client, one_by_one)


def test_a_picture_is_encoded_once_for_all_steps(server):
    encoded = server.front.metrics.pictures.labels("encoded")._value
    before = encoded.get()
    _, usage = content(server.client, [question(UNSURE, png(SHOWN) + b"another file")])
    assert (encoded.get(), len(usage.guard["tries"])) == (before + 1, 3)


def test_a_request_that_names_a_method_or_has_no_picture_is_answered_without_it(server):
    for more in ({"reducer": "none"}, {"keep": 36}, {"reducer": "pool:keep=9"}):
        _, usage = content(server.client, [question(UNSURE, png(SHOWN))], extra_body=more)
        assert not hasattr(usage, "guard")
    _, usage = content(server.client, [{"role": "user", "content": "is there a heart?"}])
    assert not hasattr(usage, "guard")


@pytest.mark.parametrize("stream", [False, True])
def test_who_wants_less_gets_the_beginning_of_the_same_answer(server, stream):
    messages = [question(UNSURE, png(SHOWN))]
    whole, usage = content(server.client, messages)
    cut, same = content(server.client, messages, stream=stream, max_tokens=1)
    assert whole.startswith(cut) and same.guard == usage.guard
    cut, _ = content(server.client, messages, stream=stream, stop=[whole[1:3]])
    assert cut == whole[:1]


@pytest.mark.parametrize("more", [{"temperature": 0.7}, {"frequency_penalty": 1}, {"logprobs": True}])
def test_what_is_not_the_likeliest_answer_is_refused(server, more):
    with pytest.raises(openai.BadRequestError, match=r"likeliest|not done by this server's own engine"):
        content(server.client, [question(UNSURE, png(SHOWN))], **more)


def test_labels_change_nothing(server):
    assert content(server.client, [question(UNSURE, png(SHOWN))], user="me", temperature=0)[0]


def test_an_engine_that_hides_probabilities_is_named(tiny, untrained, engine, monkeypatch):
    with serving(*untrained, engine=engine.url, guard=Guard(("pool:keep=9",), 0.0)) as server:
        upstream = server.front.engine.engine.upstream
        real = upstream.whole

        async def hides(body):
            found = await real(body)
            found["choices"][0]["logprobs"] = None
            return found

        monkeypatch.setattr(upstream, "whole", hides)
        with pytest.raises(openai.APIStatusError, match="how probable its answers are") as refused:
            content(server.client, [question(UNSURE, png(SHOWN))])
    assert refused.value.status_code == 502


def test_other_questions_than_at_calibration_are_noticed(untrained, logged):
    guard = Guard(("pool:keep=9",), 2.0, 1, calibrated={"untouched": 0.01})
    with serving(*untrained, guard=guard) as server:
        for _ in range(20):
            content(server.client, [question(UNSURE, png(SHOWN))])
        assert server.front.metrics.guarded.labels("untouched")._value.get() == 20
    assert logged.getvalue().count("calibrate on some of them") == 1


def test_a_guard_of_other_weights_is_refused(tiny, untrained):
    guard = Guard(GUARD.steps, 0.5, calibrated={"weights": fingerprint(tiny[0]), "model": "tiny"})
    with pytest.raises(PrumergeError, match="calibrated on other weights"):
        build(untrained[0], untrained[1], Settings(name="x", guard=guard))


def test_sizes_on_attention_are_not_left_out_of_a_guard(untrained):
    guard = Guard(GUARD.steps, 0.5, options={"size_bias": True})
    with pytest.raises(PrumergeError, match="calibrate without"):
        build(untrained[0], untrained[1], Settings(name="x", guard=guard, engine="http://127.0.0.1:9"))
