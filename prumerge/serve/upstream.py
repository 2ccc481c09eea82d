"""One engine by HTTP: a request is sent again while no token of it came, and ended when its client leaves."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2

from prumerge.serve.metrics import Metrics
from prumerge.serve.refusal import Refusal

TRIES = 3
"""How often a request is sent at most."""
PAUSE = 0.2
"""Seconds before it is sent again, times the number of tries."""
_LOST = (httpx2.TransportError, httpx2.StreamError, json.JSONDecodeError, UnicodeDecodeError)


class Failed(Exception):
    """The engine could not answer, which another try may."""


class Upstream:
    """OpenAI's chat at a URL: an engine, or a router in front of several."""

    def __init__(self, url: str, metrics: Metrics, *, connect: float, first: float) -> None:
        """So many seconds to connect, and for the first byte of an answer."""
        self.url, self.metrics = url.rstrip("/").removesuffix("/v1"), metrics
        self.client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(first, connect=connect),
            limits=httpx2.Limits(max_connections=10_000, max_keepalive_connections=64),
            trust_env=False,
        )

    async def close(self) -> None:
        await self.client.aclose()

    async def get(self, path: str) -> Any:
        """What is at a path; raises Failed where nothing is."""
        try:
            response = await self.client.get(f"{self.url}{path}", timeout=5)
            response.raise_for_status()
            return response.json() if response.content else None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise Failed(str(error) or type(error).__name__) from None

    async def whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """A whole answer. Raises Refusal."""
        for number in range(TRIES):
            try:
                async with self._sent(body) as response:
                    found = json.loads(await response.aread())
                    if not isinstance(found, dict) or not found.get("choices"):
                        raise Failed("it answers in another form than OpenAI's")
                    return found
            except (*_LOST, Failed) as error:
                await self._again(number, error)
        raise AssertionError

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of an answer; the first of them has a token. Raises Refusal."""
        began = False
        for number in range(TRIES):
            held: list[dict[str, Any]] = []  # what came before the first token
            try:
                async with self._sent(body) as response:
                    async for chunk in _events(response):
                        if "error" in chunk:
                            raise _failed(chunk["error"])
                        held.append(chunk)
                        if began or _says(chunk):
                            began = True
                            for one in held:
                                yield one
                            held = []
                if not began:
                    raise Failed("its stream is empty")
                return
            except (*_LOST, Failed) as error:
                if began:  # never again after a token
                    raise Refusal("the engine was lost while it answered", 502, code="engine_lost") from error
                await self._again(number, error)

    @asynccontextmanager
    async def _sent(self, body: dict[str, Any]) -> AsyncIterator[httpx2.Response]:
        """A response whose status is 200; closing it ends the work upstream."""
        request = self.client.build_request("POST", f"{self.url}/v1/chat/completions", json=body)
        response = await self.client.send(request, stream=True)
        try:
            if response.status_code != 200:
                said = _said(await response.aread())
                raise _failed({"code": response.status_code, "message": said})
            yield response
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _again(self, number: int, error: Exception) -> None:
        """Wait a little before the next try; raises Refusal where there is none."""
        if number + 1 == TRIES:
            raise Refusal(
                f"no engine answers ({type(error).__name__}); try again in a while",
                502,
                code="engine_unavailable",
                retry_after=1,
            ) from error
        self.metrics.retries.inc()
        await anyio.sleep(PAUSE * number)


def _says(chunk: dict[str, Any]) -> bool:
    """Whether a chunk has more than who speaks."""
    for choice in chunk.get("choices") or ():
        said = {name: value for name, value in (choice.get("delta") or {}).items() if name != "role"}
        if choice.get("finish_reason") or any(said.values()):
            return True
    return False


async def _events(response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """The server-sent events of a stream until [DONE]; raises Failed for a stream that ends without."""
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            data = line[5:].strip()
            if data == "[DONE]":
                return
            found = json.loads(data)
            if isinstance(found, dict):
                yield found
    raise Failed("its stream was cut")


def _failed(error: Any) -> Exception:
    """What an engine's error means: a Refusal of this request, or that another try may do."""
    code = error.get("code") if isinstance(error, dict) else None
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    if not isinstance(code, int) or code >= 500:
        return Failed(message)
    if code in (401, 403, 404):
        return Failed(f"it answers {code}")
    waits = 1 if code == 429 else None
    said = " ".join(message.split())[:500]
    return Refusal(f"the engine refuses this: {said}", code, code="engine_refused", retry_after=waits)


def _said(content: bytes) -> str:
    """The message in an engine's error, whichever of its forms it has."""
    try:
        found = json.loads(content)
        return str(found.get("error", found).get("message", ""))
    except (ValueError, AttributeError):
        return ""
