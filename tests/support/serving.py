"""Servers that run while a test lasts: prumerge's own, and an engine as vLLM would be."""

import asyncio
import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import torch
import uvicorn
from openai import OpenAI
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from transformers import AutoModelForCausalLM, AutoTokenizer

from prumerge.generate.answer import answer
from prumerge.generate.guarded import Guard
from prumerge.serve.app import make_app
from prumerge.serve.build import Settings, build
from prumerge.tiny import held_out
from prumerge.tiny.scenes import scene

KEY = "sk-test"


@contextmanager
def running(app):
    """The URL of an app that is served from a thread of its own."""
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started, 90)  # an engine is probed first
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        if not server.started:
            server.force_exit = True
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def serving(model, processor, **settings):
    """A server of a model: its URL, what is behind it, and a client."""
    front = build(model, processor, Settings(**{"name": "tiny", **settings}))
    with running(make_app(front)) as url, OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield SimpleNamespace(url=url, front=front, client=client)


def start(loaded, url, **settings):
    """Let a front of an engine get ready."""

    async def begin():
        front = build(loaded[0], loaded[1], Settings(name="tiny", engine=url, **settings))
        try:
            await front.start()
        finally:
            await front.stop()

    asyncio.run(begin())


# Each client of its own would read all of the world's certificates first.
HTTP = httpx2.Client(timeout=20, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))


def ask_http(server, body, **options):
    """A question by plain HTTP."""
    return HTTP.post(f"{server.url}/v1/chat/completions", json=body, **options)


async def answered(model, processor, bodies, **settings):
    """What a server of a model answers to requests that come at once, without HTTP, or why it does not."""
    front = build(model, processor, Settings(**{"name": "tiny", **settings}))

    async def one(body):
        with ExitStack() as held:
            chat = front.read(json.dumps(body).encode())
            return await front.engine.whole(await front.asked(chat, held))

    await front.start()
    try:
        return await asyncio.gather(*map(one, bodies), return_exceptions=True)
    finally:
        await front.stop()


def until(holds, seconds=10.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def data_url(content, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def question(text, *files):
    """One user turn about some pictures."""
    shown = [{"type": "image_url", "image_url": {"url": data_url(file)}} for file in files]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def content(client, messages, *, stream=False, **more):
    """The text of an answer, and what was counted."""
    options = {"model": "tiny", "messages": messages, "max_tokens": 16, **more}
    if not stream:
        found = client.chat.completions.create(**options)
        return found.choices[0].message.content, found.usage
    chunks = list(
        client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options)
    )
    text = "".join(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)
    return text, chunks[-1].usage


def said_of(rows, model, processor):
    """Questions about so many pictures, each by its method, and what `prumerge answer` says."""
    shown, found = list(islice(held_out(4), 4)), []
    for number, (count, spec) in enumerate(rows):
        images = [shown[(number + more) % 4][0] for more in range(count)]
        text = shown[number % 4][1].text
        said = answer(model, processor, images, text, spec, clip=False, max_new_tokens=16)
        found.append((question(text, *map(png, images)), spec, said))
    return found


def check_at_once(client, asked, requests):
    """So many requests at once, every second round of the questions as streams, get what was said."""

    def ask(number):
        messages, spec, said = asked[number % len(asked)]
        stream = number // len(asked) % 2 == 0
        return content(client, [messages], stream=stream, extra_body={"reducer": spec}), said

    with ThreadPoolExecutor(requests) as pool:
        found = list(pool.map(ask, range(requests)))
    assert [text for (text, _), _ in found] == [said.answer for _, said in found]
    for (_, usage), said in found:
        seen = usage.prompt_tokens_details
        assert usage.completion_tokens == said.answer_tokens
        assert usage.prompt_tokens == said.prompt_tokens
        assert seen.visual_tokens % 576 == 0
        assert seen.visual_tokens_kept == pytest.approx(said.visual_tokens, abs=0.01)


GUARD = Guard(("prumerge:keep=15", "medoids:keep=36"), 0.41, max_new_tokens=12)
"""Under which each of its steps answers some of what `said_under_guard` asks."""


def said_under_guard(model):
    """Pictures, questions about them, and what a `Guarded` says to one after the other."""
    texts = [
        "is there a heart?",
        "which shape is blue?",
        "how many shapes are there?",
        "what does the sign say?",
    ]
    asked = [(scene(9_800_013 + number).image, text) for number in range(2) for text in texts]
    found = [(image, text, model.answer(image, text)) for image, text in asked]
    assert {said.method for *_, said in found} == {*GUARD.steps, "untouched"}
    return found


def check_guarded(client, asked):
    """Many requests at once get what `said_under_guard` says, and are told what each step said."""

    def ask(number):
        image, text, _ = asked[number]
        return content(client, [question(text, png(image))], stream=number % 2 == 0)

    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(ask, range(len(asked))))
    for (text, usage), (*_, said) in zip(found, asked, strict=True):
        tries = usage.guard["tries"]
        assert (text, usage.guard["answered_by"]) == (said.answer, said.method)
        assert [(one["step"], one["visual_tokens"]) for one in tries] == [
            (one.method, one.visual_tokens) for one in said.tries
        ]
        assert tries[-1]["probability"] == pytest.approx(said.tries[-1].probability, abs=1e-3)
        assert usage.prompt_tokens_details.visual_tokens_kept == said.visual_tokens
        assert usage.completion_tokens == sum(one["completion_tokens"] for one in tries)


class Engine:
    """vLLM with a folder of `prumerge export-lm`, as far as a client sees it."""

    def __init__(self, folder, *, context=1024):
        self.model = AutoModelForCausalLM.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.context, self.url = context, ""
        self.forget()
        routes = [
            Route("/v1/models", self._models),
            Route("/health", lambda _: Response()),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    def forget(self):
        """Begin anew."""
        self.bodies: list[Any] = []
        self.aborted = self.running = 0
        self.faults: list[str] = []
        """What goes wrong with the next requests: "status", "refusal", "event", "cut", "slow"."""

    async def _models(self, _):
        return JSONResponse({"data": [{"id": "the-lm", "max_model_len": self.context}]})

    @torch.inference_mode()
    def _answer(self, body):
        (part,) = body["messages"][0]["content"]
        words = [{"role": "user", "content": [{"type": "text", "text": part["type"]}]}]
        options = body["chat_template_kwargs"]
        assert self.tokenizer.apply_chat_template(words, tokenize=False, **options) == "prompt_embeds"
        embeddings = torch.load(io.BytesIO(base64.b64decode(part["data"])), weights_only=True)
        output = self.model.generate(
            inputs_embeds=embeddings[None],
            attention_mask=torch.ones(1, len(embeddings), dtype=torch.long),
            max_new_tokens=body["max_tokens"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        logits = torch.stack(output.logits, 1)[0]
        return len(embeddings), output.sequences[0].tolist(), logits.log_softmax(-1)

    async def _chat(self, request):
        body = await request.json()
        fault = self.faults.pop(0) if self.faults else None
        self.bodies.append(body)
        if fault == "status":
            return JSONResponse({"error": {"message": "EngineCore is gone", "code": 500}}, 500)
        if fault == "refusal":
            return JSONResponse({"error": {"message": "tools need a parser", "code": 400}}, 400)
        if fault == "event":
            return StreamingResponse(iter([b'data: {"error": {"message": "gone", "code": 500}}\n\n']))
        if fault == "slow":
            return await self._slow(request)
        read, tokens, sure = self._answer(body)
        usage = {"prompt_tokens": read, "completion_tokens": len(tokens), "total_tokens": read + len(tokens)}
        reason = "stop" if tokens[-1] == self.model.generation_config.eos_token_id else "length"
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        if not body.get("stream"):
            places = [
                {
                    "token": f"token_id:{token}",
                    "logprob": float(row[token]),
                    "top_logprobs": [{"token": f"token_id:{one}"} for one in row.topk(5).indices.tolist()],
                }
                for token, row in zip(tokens, sure, strict=True)
            ]
            choice: dict[str, Any] = {
                "index": 0,
                "message": {"role": "assistant", "content": f" {text}"},
                "logprobs": {"content": places if body.get("logprobs") else None},
                "token_ids": tokens if body.get("return_token_ids") else None,
                "finish_reason": reason,
            }
            return JSONResponse({"id": "x", "created": 1, "choices": [choice], "usage": usage})
        deltas: list[dict[str, str]] = [
            {"role": "assistant", "content": ""},
            {"content": " "},
            *({"content": one} for one in text),
        ]
        choices: list[Any] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {"content": ""}, "finish_reason": reason})
        events: list[dict[str, Any]] = [{"id": "x", "choices": [one]} for one in choices]
        events.append({"id": "x", "choices": [], "usage": usage})
        lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
        if fault == "cut":
            return StreamingResponse(iter(lines[:4]))
        return StreamingResponse(iter([*lines, b"data: [DONE]\n\n"]))

    async def _slow(self, request):
        """An answer that never comes; counts whether its client left."""
        self.running += 1
        try:
            while not await request.is_disconnected():
                await asyncio.sleep(0.01)
            self.aborted += 1
        finally:
            self.running -= 1
        return Response()
