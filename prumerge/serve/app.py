"""HTTP: who may ask, what comes back, and what happens when a client leaves."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import anyio
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from prumerge.serve.asked import Asked
from prumerge.serve.front import Front
from prumerge.serve.look import PAGE, look, methods, page, samples
from prumerge.serve.refusal import Refusal, busy, refusal_of

log = logging.getLogger("prumerge.serve")
Result = TypeVar("Result")


def make_app(front: Front) -> FastAPI:
    """The server of one model."""

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        await front.start()
        try:
            yield
        finally:
            await front.stop()
            log.info("all that was held is answered")

    app = FastAPI(lifespan=life, title="prumerge", openapi_url=None)
    http = _Http(front)
    app.add_route("/v1/chat/completions", http.chat, ["POST"])
    app.add_route("/v1/models", http.models, ["GET"])
    app.add_route("/v1/models/{name:path}", http.model, ["GET"])
    app.add_route("/health", http.health, ["GET"])
    app.add_route("/ready", http.ready, ["GET"])
    app.add_route("/metrics", http.metrics, ["GET"])
    if front.page and PAGE.is_dir():
        app.add_route("/page/samples", http.samples, ["GET"])
        app.add_route("/page/methods", http.methods, ["GET"])
        app.add_route("/page/select", http.select, ["POST"])
        app.router.routes.extend(page(PAGE, front.frames))
    app.add_exception_handler(HTTPException, _not_here)
    return app


async def _not_here(request: Request, error: Any) -> Response:
    """What Starlette says of paths and methods that there are none, in OpenAI's form."""
    refusal = Refusal(
        f"there is no {request.method[:10]} {request.url.path[:80]} here; ask POST /v1/chat/completions",
        error.status_code,
        code="not_found",
    )
    return _refused(refusal, error.headers)


def _refused(refusal: Refusal, headers: Any = None) -> Response:
    return JSONResponse(refusal.body(), refusal.status, {**(headers or {}), **refusal.headers})


class _Http:
    """What is answered on which path."""

    def __init__(self, front: Front) -> None:
        self.front, self.started = front, int(time.time())

    async def health(self, _: Request) -> Response:
        """The process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """A question would be answered."""
        ready = await self.front.engine.ready()
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    async def metrics(self, _: Request) -> Response:
        return Response(self.front.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def models(self, request: Request) -> Response:
        return self._guarded(request, lambda: {"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        def card() -> dict[str, Any]:
            if request.path_params["name"] != self.front.name:
                raise Refusal(f"there is only {self.front.name!r} here", 404, code="model_not_found")
            return self._card()

        return self._guarded(request, card)

    def _card(self) -> dict[str, Any]:
        front = self.front
        about = {"reducer": front.allowed.default, "reducers": sorted(front.allowed.names)}
        return {
            "id": front.name,
            "object": "model",
            "created": self.started,
            "owned_by": "prumerge",
            "prumerge": about,
        }

    def _guarded(self, request: Request, found: Callable[[], Any]) -> Response:
        try:
            self._admit(request)
            return JSONResponse(found())
        except Refusal as refusal:
            return _refused(refusal)

    def _admit(self, request: Request) -> None:
        """Raise Refusal unless the request brings the key; how long that takes says nothing about the key."""
        if self.front.key is None:
            return
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, f"Bearer {self.front.key}".encode()):
            raise Refusal("the API key is missing or wrong", 401, code="invalid_api_key")

    async def samples(self, request: Request) -> Response:
        return await asyncio.to_thread(self._guarded, request, samples)

    async def methods(self, request: Request) -> Response:
        front = self.front
        return self._guarded(request, lambda: {"model": front.name, "methods": methods(front.allowed)})

    async def chat(self, request: Request) -> Response:
        """A question, answered whole or as a stream."""
        return await self._visited(request, _Visit.answer)

    async def select(self, request: Request) -> Response:
        """What would be kept of the picture of a question, which is not answered."""
        return await self._visited(request, _Visit.look)

    async def _visited(
        self, request: Request, answer: Callable[[_Visit, Request], Awaitable[Response]]
    ) -> Response:
        visit = _Visit(self.front)
        try:
            self._admit(request)
            visit.enter()
            return await answer(visit, request)
        except asyncio.CancelledError:
            visit.leave(499)
            raise
        except ClientDisconnect:
            visit.leave(499)
            return Response(status_code=499)
        except Exception as error:
            refusal = visit.refusal(error)
            visit.leave(refusal.status)
            return _refused(refusal)


class _Visit:
    """One request, from its first byte to its last; what it holds is given back once."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.id = uuid4().hex[:12]
        self._held = ExitStack()
        self._since = time.perf_counter()
        self._about: dict[str, Any] = {}
        self._left = False

    def enter(self) -> None:
        """Raise Refusal (429) where as many are held as can be."""
        front = self.front
        if front.held >= front.limits.requests:
            raise busy("the server has as many requests as it can hold; send the request again in a while")
        front.held += 1
        front.metrics.held.inc()

        def back() -> None:
            front.held -= 1
            front.metrics.held.dec()

        self._held.callback(back)

    def leave(self, status: int) -> None:
        """Give back what is held, count, and log; without a word of what was asked or answered."""
        if self._left:
            return
        self._left = True
        self._held.close()
        self.front.metrics.requests.labels(str(status)).inc()
        passed = time.perf_counter() - self._since
        self.front.metrics.seconds.labels("request").observe(passed)
        said = " ".join(f"{name}={value}" for name, value in self._about.items())
        log.info("%s %d %.0f ms %s", self.id, status, passed * 1000, said)

    def refusal(self, error: Exception) -> Refusal:
        """What the client is told; where the fault is in code, the log says where."""
        refusal = refusal_of(error)
        if refusal.status == 500:
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s %s\n%s", self.id, type(error).__name__, where)
        return refusal

    async def _asked(self, request: Request) -> Asked:
        """The question of a request."""
        front = self.front
        with front.bytes.growing() as take:
            raw = await _body(request, front.limits.body, front.limits.body_seconds, take)
            chat = await asyncio.to_thread(front.read, raw)
            del raw
            asked = await _unless_gone(request, front.asked(chat, self._held))
        self._about = {"reducer": asked.pipeline.method, "pictures": len(asked.pictures)}
        return asked

    async def look(self, request: Request) -> Response:
        """What is kept of the picture of a question."""
        asked = await self._asked(request)
        with _patience(self.front.limits.seconds):
            found = await _unless_gone(request, look(self.front.encoder, asked))
        self._about["looks"] = True
        self.leave(200)
        return JSONResponse(found)

    async def answer(self, request: Request) -> Response:
        """The response, once its status is known: of a stream when its first chunk is there."""
        front = self.front
        asked = await self._asked(request)
        streams, wants_usage = bool(asked.chat.stream), asked.chat.wants_usage
        self._about["stream"] = streams
        if not streams:
            with _patience(front.limits.seconds):
                found = await _unless_gone(request, front.engine.whole(asked))
            self._count(found)
            self.leave(200)
            return JSONResponse({**found, "model": front.name}, headers={"x-request-id": self.id})
        chunks = self._chunks(asked, wants_usage)
        try:
            first = await _unless_gone(request, anext(chunks))
        except BaseException:
            await chunks.aclose()
            raise
        return _Stream(self, first, chunks)

    async def _chunks(self, asked: Asked, wants_usage: bool) -> AsyncGenerator[dict[str, Any], None]:
        """The engine's chunks as the client wants them; raises PrumergeError, also where they take too
        long."""
        until = time.monotonic() + self.front.limits.seconds
        async with aclosing(self.front.engine.stream(asked)) as chunks:
            while True:
                try:
                    with _patience(until - time.monotonic()):
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                if "usage" in chunk:
                    self._count(chunk)
                    if not wants_usage:
                        continue
                yield {**chunk, "model": self.front.name}

    async def sent(
        self, first: dict[str, Any], chunks: AsyncGenerator[dict[str, Any], None]
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events; an error that comes after the first one is an event too."""
        status = 499  # unless all is sent
        try:
            yield _event(first)
            async for chunk in chunks:
                yield _event(chunk)
            yield b"data: [DONE]\n\n"
            status = 200
        except Exception as error:
            refusal = self.refusal(error)
            status = refusal.status
            yield _event(refusal.body())
        finally:
            self.leave(status)

    def _count(self, found: dict[str, Any]) -> None:
        counted = found["usage"]
        seen = counted["prompt_tokens_details"]
        for which, name in (("before", "visual_tokens"), ("after", "visual_tokens_kept")):
            self.front.metrics.visual_tokens.labels(which).inc(seen[name])
        self._about |= {
            "visual": f"{seen['visual_tokens']}->{seen['visual_tokens_kept']}",
            "prompt": counted["prompt_tokens"],
            "answer": counted["completion_tokens"],
        }
        if "guard" in counted:
            self._about["reducer"] = counted["guard"]["answered_by"]


class _Stream(StreamingResponse):
    """A visit's stream. It ends whatever happens: a client may leave before anything was sent, or stay and
    never read."""

    def __init__(
        self, visit: _Visit, first: dict[str, Any], chunks: AsyncGenerator[dict[str, Any], None]
    ) -> None:
        headers = {"x-request-id": visit.id, "cache-control": "no-cache", "x-accel-buffering": "no"}
        self.visit, self.chunks, self.sent = visit, chunks, visit.sent(first, chunks)
        super().__init__(self.sent, media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with anyio.move_on_after(self.visit.front.limits.seconds):
                await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self.sent.aclose()
                await self.chunks.aclose()
            self.visit.leave(499)  # unless all was sent


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """So many seconds; then Refusal (504)."""
    try:
        with anyio.fail_after(max(seconds, 0)):
            yield
    except TimeoutError:
        raise Refusal("the answer took too long; ask for fewer tokens", 504, code="timeout") from None


async def _body(request: Request, most: int, seconds: float, take: Callable[[int], None]) -> bytearray:
    """What is sent, within bounds of size and time; `take` is told of bytes that came, since what is only
    announced takes no memory. Raises Refusal."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and (len(said) > 20 or int(said) > most):
        raise _too_long(most)
    body = bytearray()
    try:
        with anyio.fail_after(seconds):
            async for chunk in request.stream():
                take(len(chunk))
                body += chunk
                if len(body) > most:
                    raise _too_long(most)
    except TimeoutError:
        raise Refusal(f"the request did not arrive within {seconds:g} s", 408, code="timeout") from None
    return body


def _too_long(most: int) -> Refusal:
    return Refusal(
        f"the request has more than {most // 2**20} MiB; send fewer or smaller pictures",
        413,
        code="request_too_large",
    )


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Do some work while the client waits; it is cancelled, and ClientDisconnect raised, when they leave."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
