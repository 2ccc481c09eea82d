"""Whatever is wrong with a request is a sentence in OpenAI's error form, and the next one is answered."""

import base64
import json
import socket
import struct
import zlib
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from PIL import Image
from serving import HTTP, KEY, data_url, png, question, serving, until

from prumerge.serve.limits import MIB, Limits

PICTURE = png(Image.radial_gradient("L").convert("RGB").resize((40, 40)))
GOOD: dict[str, Any] = {"model": "tiny", "messages": [question("is there a star?", PICTURE)], "max_tokens": 2}


@pytest.fixture(scope="module")
def small_server(untrained):
    limits = Limits(
        body=MIB,
        picture=MIB // 2,
        pixels=2_000_000,
        pictures=3,
        messages=10,
        characters=2000,
        body_seconds=0.5,
    )
    with serving(*untrained, limits=limits, seconds=0) as found:
        yield found


def post(server, content, **headers):
    return HTTP.post(f"{server.url}/v1/chat/completions", content=content, headers=headers)


def sent(body):
    """As it goes over the wire."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def asks(*parts, **more):
    return {**GOOD, "messages": [{"role": "user", "content": list(parts)}], **more}


def shows(url):
    return asks({"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what?"})


def bomb(width, height):
    """The header of a picture that would fill the memory."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))


BAD = {
    "not json": b"{",
    "nothing": b"",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "deep inside": json.dumps({**GOOD, "x": 0}).encode().replace(b'"x": 0', b'"x": ' + b'{"a":' * 5000),
    "bytes": bytes(range(256)),
    "no messages": {**GOOD, "messages": []},
    "messages of another type": {**GOOD, "messages": "hello"},
    "another role": {**GOOD, "messages": [{"role": "king", "content": "x"}]},
    "content of another type": {**GOOD, "messages": [{"role": "user", "content": 3}]},
    "a system's word last": {**GOOD, "messages": [{"role": "system", "content": "x"}]},
    "an answer last": {**GOOD, "messages": [*GOOD["messages"], {"role": "assistant", "content": "x"}]},
    "text of another type": asks({"type": "text", "text": None}),
    "a part without a type": asks({"text": "x"}),
    "tensors": asks({"type": "prompt_embeds", "data": "AAAA"}),
    "tensors of a picture": asks({"type": "image_embeds", "image_embeds": "AAAA"}),
    "temperature as text": {**GOOD, "temperature": "0"},
    "temperature too high": {**GOOD, "temperature": 1e308},
    "no tokens": {**GOOD, "max_tokens": 0},
    "tokens as a fraction": {**GOOD, "max_tokens": 1.5},
    "a huge number": b'{"model": "tiny", "max_tokens": ' + b"9" * 5000 + b"}",
    "not a number": json.dumps({**GOOD, "top_p": float("nan")}).encode(),
    "many answers": {**GOOD, "n": 2},
    "no method": {**GOOD, "reducer": "magic"},
    "a method that is not allowed": {**GOOD, "reducer": "fastv"},
    "a long chain": {**GOOD, "reducer": "+".join(["none"] * 9)},
    "an option that there is none": {**GOOD, "reducer": "prumerge:magic=1"},
    "a budget that is none": {**GOOD, "keep": 0},
    "more than there is": {**GOOD, "keep": 10_000},
    "tools": {**GOOD, "tools": [{"type": "function"}]},
    "log probabilities": {**GOOD, "logprobs": True},
    "a form": {**GOOD, "response_format": {"type": "json_object"}},
    "cut base64": shows(data_url(PICTURE)[:-3]),
    "no base64": shows("data:image/png;base64,%%%%"),
    "a cut picture": shows(data_url(PICTURE[:60])),
    "no picture": shows(data_url(b"hello")),
    "another kind of file": shows(data_url(b"%PDF-1.4", "pdf")),
    "an empty picture": shows("data:image/png;base64,"),
    "a tiny picture": shows(data_url(png(Image.new("RGB", (3, 3))))),
    "a bomb": shows(data_url(bomb(60_000, 60_000))),
    "a file on disk": shows("file:///etc/passwd"),
    "the web": shows("http://example.com/a.png"),
    "no url": shows(""),
    "too many pictures": {**GOOD, "messages": [question("what?", *[PICTURE] * 4)]},
    "too many messages": {**GOOD, "messages": [{"role": "user", "content": "x"}] * 11},
    "too much text": {**GOOD, "messages": [{"role": "user", "content": "x" * 2001}]},
    "a word that stands for a picture": {**GOOD, "messages": [{"role": "user", "content": "<image>"}]},
    "a word that stands for embeddings": {
        **GOOD,
        "messages": [{"role": "user", "content": "<prompt_embeds>"}],
    },
}
OTHER_STATUS = {
    "another model": ({**GOOD, "model": "gpt"}, 404),
    "a picture of too many pixels": (shows(data_url(bomb(2000, 2000))), 413),
    "a large picture": (shows(data_url(bytes(600_000))), 413),
    "a large request": (b" " * (MIB + 1), 413),
}


def refused(response, status):
    error = response.json()["error"]
    assert response.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] in {"invalid_request_error", "authentication_error", "rate_limit_error"}
    assert len(error["message"]) < 600 and "\n" not in error["message"]
    return error["message"]


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_a_bad_request_is_refused(small_server, body):
    refused(post(small_server, sent(body)), 400)


@pytest.mark.parametrize(("body", "status"), OTHER_STATUS.values(), ids=OTHER_STATUS)
def test_a_refusal_says_why_by_its_status(small_server, body, status):
    refused(post(small_server, sent(body)), status)


def test_the_next_good_request_is_answered(small_server):
    for body in list(BAD.values())[::6]:
        post(small_server, sent(body))
    assert small_server.client.chat.completions.create(**GOOD).usage.completion_tokens == 2
    assert (small_server.front.held, small_server.front.pixels.taken, small_server.front.bytes.taken) == (
        0,
        0,
        0,
    )


def test_tensors_are_refused_by_name(small_server):
    with pytest.raises(openai.BadRequestError, match="no tensors are taken"):
        small_server.client.chat.completions.create(**asks({"type": "prompt_embeds", "data": ""}))


def test_a_prompt_that_fills_the_context_is_refused(untrained):
    with serving(*untrained, limits=Limits(characters=10**6)) as server:
        long = {**GOOD, "messages": [{"role": "user", "content": "the star " * 5000}]}
        assert "the model reads" in refused(post(server, json.dumps(long).encode()), 400)


def test_a_longer_answer_than_is_served_is_made_shorter(untrained):
    with serving(*untrained, limits=Limits(tokens=3)) as server:
        found = server.client.chat.completions.create(**{**GOOD, "max_tokens": 10**9})
        assert found.usage.completion_tokens == 3


def test_a_request_that_does_not_arrive_is_not_waited_for(small_server):
    host, port = small_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sent:
        sent.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        sent.settimeout(10)
        assert b" 408 " in sent.recv(65536)


def test_a_key_is_asked_for(untrained):
    with serving(*untrained, key=KEY) as server:
        wrong = HTTP.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer no"})
        assert "API key" in refused(wrong, 401)
        refused(post(server, json.dumps(GOOD).encode()), 401)
        assert server.client.models.list().data
        assert HTTP.get(f"{server.url}/health").status_code == 200


def test_one_more_than_can_be_held_is_told_to_come_again(untrained):
    with serving(*untrained, limits=Limits(requests=0)) as server:
        response = post(server, json.dumps(GOOD).encode())
        refused(response, 429)
        assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize("limits", [{"held_pixels": 100}, {"held_bytes": 100}])
def test_what_is_held_at_once_is_bounded(untrained, limits):
    with serving(*untrained, limits=Limits(**limits)) as server:
        response = post(server, json.dumps(GOOD).encode())
        refused(response, 429)
        assert response.headers["Retry-After"] == "1"


def test_what_is_only_announced_takes_no_place(untrained):
    with (
        serving(*untrained, limits=Limits(body=MIB, held_bytes=MIB + 1000)) as server,
        ExitStack() as stack,
    ):
        for head in (f"Content-Length: {MIB}", "Transfer-Encoding: chunked", f"Content-Length: {MIB}"):
            host, port = server.url.removeprefix("http://").split(":")
            waits = stack.enter_context(socket.create_connection((host, int(port))))
            waits.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        until(lambda: server.front.held == 3)
        assert post(server, json.dumps(GOOD).encode()).status_code == 200


def test_paths_that_there_are_none_are_refused_in_the_same_form(small_server):
    refused(HTTP.get(f"{small_server.url}/v1/magic"), 404)
    refused(HTTP.get(f"{small_server.url}/v1/chat/completions"), 405)
    refused(HTTP.get(f"{small_server.url}/v1/models/gpt"), 404)


def test_a_fault_in_code_is_not_explained_to_clients(small_server, monkeypatch, logged):
    def broken(images, texts):
        raise RuntimeError(texts[0])

    monkeypatch.setattr(small_server.front.host, "prompt", broken)
    response = post(small_server, json.dumps({**GOOD, "messages": [{"role": "user", "content": "star"}]}))
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "star" not in response.text + logged.getvalue()
    assert "RuntimeError" in logged.getvalue()


def test_the_log_has_nothing_of_what_was_asked_or_answered(small_server, logged):
    messages = [question("is there a marvellous star?", PICTURE)]
    found = small_server.client.chat.completions.create(**{**GOOD, "messages": messages})
    until(lambda: "visual=" in logged.getvalue())
    assert "marvellous" not in logged.getvalue()
    assert base64.b64encode(PICTURE).decode()[:40] not in logged.getvalue()
    assert f"answer={found.usage.completion_tokens}" in logged.getvalue()


def test_what_was_done_is_counted(small_server):
    small_server.client.chat.completions.create(**GOOD)
    text = HTTP.get(f"{small_server.url}/metrics").text
    assert 'prumerge_requests_total{status="200"}' in text
    assert 'prumerge_visual_tokens_total{which="before"}' in text
    assert HTTP.get(f"{small_server.url}/ready").status_code == 200
