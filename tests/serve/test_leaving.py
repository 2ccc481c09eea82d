"""Clients that leave end what was done for them, and take nothing from others; a server that is told to end
answers what it holds."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import SimpleNamespace

import httpx2
import openai
import pytest
from PIL import Image
from serving import HTTP, ask_http, png, question, running, serving, until

from prumerge.serve.app import make_app
from prumerge.serve.build import Settings, build
from prumerge.serve.limits import Limits

NUMBERS = count()


def picture():
    """A file that nobody has sent before."""
    return png(Image.new("RGB", (40, 40), (next(NUMBERS) % 256, 7, 9)))


def body(file, **more):
    return {"model": "tiny", "messages": [question("is there a star?", file)], **more}


def slow(host):
    """Hold the model's thread until the returned event is set."""
    going = threading.Event()
    host.thread.submit(going.wait)
    return going


def leave(server, request, seconds=0.3):
    with pytest.raises(httpx2.TimeoutException):
        ask_http(server, request, timeout=seconds)


def idle(server):
    front = server.front
    return front.held == 0 and front.encoder.idle and front.engine.idle and front.pixels.taken == 0


@pytest.fixture(scope="module")
def server(untrained):
    with serving(*untrained, seconds=0.001) as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_left_of_clients_that_leave(server, stream):
    going = slow(server.front.host)
    try:
        with ThreadPoolExecutor(24) as pool:
            list(
                pool.map(
                    lambda file: leave(server, body(file, stream=stream)), [picture() for _ in range(24)]
                )
            )
        until(lambda: server.front.held == 0, 2)
    finally:
        going.set()
    until(lambda: idle(server), 2)


def test_a_picture_that_all_have_left_is_not_encoded(server):
    going, encoded = slow(server.front.host), server.front.metrics.pictures.labels("encoded")
    before, first = encoded._value.get(), picture()
    try:
        leave(server, body(first))  # in the thread's queue by now
        for _ in range(3):
            leave(server, body(picture()), 0.1)
    finally:
        going.set()
    until(lambda: idle(server), 2)
    assert encoded._value.get() == before + 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_when_its_client_leaves(server, stream, monkeypatch):
    monkeypatch.setattr(server.front.host, "ends", frozenset())
    monkeypatch.setattr(server.front.host.model.generation_config, "eos_token_id", None)
    request = body(picture(), stream=stream, max_tokens=1024)
    server.client.chat.completions.create(**{**request, "max_tokens": 1, "stream": False})
    since = time.monotonic()
    if stream:
        with HTTP.stream("POST", f"{server.url}/v1/chat/completions", json=request) as response:
            next(response.iter_lines())
    else:
        leave(server, request, 0.2)
    until(lambda: idle(server), 2)
    assert time.monotonic() - since < 2  # all tokens would take longer


def test_whoever_leaves_does_not_take_the_picture_from_others(server):
    going, file = slow(server.front.host), picture()
    with ThreadPoolExecutor(1) as pool:
        try:
            leaving = pool.submit(leave, server, body(file))  # asks first
            time.sleep(0.1)
            staying = ThreadPoolExecutor(1).submit(ask_http, server, body(file, max_tokens=2))
            leaving.result()
        finally:
            going.set()
        assert staying.result().status_code == 200
    assert server.front.metrics.pictures.labels("joined")._value.get() >= 1


def test_one_that_cannot_be_answered_does_not_fail_the_others(server):
    going = slow(server.front.host)
    requests = [body(picture(), max_tokens=2, **more) for more in ({}, {"keep": 10_000}, {})]
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(ask_http, server, one) for one in requests]
        time.sleep(0.1)
        going.set()
        assert [one.result().status_code for one in found] == [200, 400, 200]


def test_a_prompt_that_is_too_long_does_not_fail_those_in_its_batch(untrained):
    with (
        serving(*untrained, seconds=0.1, limits=Limits(characters=10**6)) as server,
        ThreadPoolExecutor(3) as pool,
    ):
        texts = ["is there a star?", "the star " * 5000, "is there a sign?"]
        going = slow(server.front.host)
        found = [
            pool.submit(
                ask_http,
                server,
                {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 2},
            )
            for text in texts
        ]
        until(lambda: server.front.held == 3)
        going.set()
        assert [one.result().status_code for one in found] == [200, 400, 200]


def test_an_answer_that_takes_too_long_is_given_up(untrained):
    with serving(*untrained, limits=Limits(seconds=0.2)) as server:
        going = slow(server.front.host)
        try:
            with pytest.raises(openai.APIStatusError) as refused:
                server.client.chat.completions.create(**body(picture()))
        finally:
            going.set()
        assert refused.value.status_code == 504
        until(lambda: idle(server), 2)


def test_a_server_that_is_told_to_end_answers_what_it_holds(untrained):
    front = build(untrained[0], untrained[1], Settings(name="tiny"))
    with running(make_app(front)) as url, ThreadPoolExecutor(1) as pool:
        going = slow(front.host)
        held = pool.submit(ask_http, SimpleNamespace(url=url), body(picture(), max_tokens=2))
        until(lambda: front.held == 1)
        threading.Timer(0.3, going.set).start()
        # The server is told to end when this block is left.
    assert held.result().status_code == 200


def test_an_error_after_the_first_word_is_an_event(server, monkeypatch):
    from prumerge.serve.refusal import Refusal

    real = server.front.engine.stream

    async def broken(asked):
        async for chunk in real(asked):
            yield chunk
            raise Refusal("the engine was lost", 502)

    monkeypatch.setattr(server.front.engine, "stream", broken)
    found = ask_http(server, body(picture(), stream=True))
    events = [json.loads(line[6:]) for line in found.text.splitlines() if line.startswith("data: ")]
    assert found.status_code == 200
    assert events[-1]["error"]["message"] == "the engine was lost"
