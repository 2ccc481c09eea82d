"""What `prumerge serve` itself costs in front of an engine that answers at once: requests per second and
latency, with pictures that are new and with pictures that are remembered, encoded in batches and one by one.

Both servers run all along, each in its own process, and take turns. The engine is a stub: what is measured is
the front, which here encodes on the same cores. Ratios count, not times.

python benchmarks/serving.py [--rounds 3] [--requests 48]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import multiprocessing
import socket
import statistics
import time
from collections.abc import Sequence
from typing import Any

import httpx2
import torch
import uvicorn
from measure import save
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import prumerge
from prumerge.serve.app import make_app
from prumerge.serve.build import Settings, build
from prumerge.serve.vllm import Vllm
from prumerge.tiny.scenes import HELD_OUT, scene

AT_ONCE = 16


class Unprobed(Vllm):
    """An engine whose weights nobody looks at."""

    async def start(self) -> None:
        self.model = "stub"


def stub(listening: socket.socket) -> None:
    """An engine that answers at once."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    message = {"role": "assistant", "content": "yes"}
    answer = {"id": "x", "created": 1, "choices": [{"index": 0, "message": message}], "usage": usage}

    async def chat(request: Request) -> Response:
        await request.body()
        return JSONResponse(answer)

    serve(Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])]), listening)


def front(listening: socket.socket, engine: str, batch: int) -> None:
    """The front, which encodes up to `batch` pictures together."""
    torch.set_num_threads(1)
    model, processor = prumerge.load("tiny")
    found = build(model, processor, Settings(name="tiny", engine=engine, batch=batch))
    own: Any = found.engine
    found.engine = Unprobed(
        found.host, found.encoder, found.metrics, found.allowed, own.upstream.url, found.limits
    )
    serve(make_app(found), listening)


def serve(app: Any, listening: socket.socket) -> None:
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run([listening])


def started(target: Any, *arguments: Any) -> tuple[multiprocessing.Process, str]:
    """A server in a process of its own, and its URL."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    process = multiprocessing.get_context("fork").Process(
        target=target, args=(listening, *arguments), daemon=True
    )
    process.start()
    return process, f"http://127.0.0.1:{listening.getsockname()[1]}"


def bodies(first: int, count: int) -> list[dict[str, Any]]:
    """Questions about `count` pictures from this one on."""
    found = []
    for number in range(first, first + count):
        buffer = io.BytesIO()
        scene(number).image.save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        shown = {"type": "image_url", "image_url": {"url": url}}
        content = [shown, {"type": "text", "text": "is there a sign?"}]
        found.append({"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 4})
    return found


async def ask(url: str, requests: Sequence[dict[str, Any]]) -> tuple[float, list[float]]:
    """All requests, AT_ONCE at a time: seconds in all, and of each."""
    each: list[float] = []
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx2.AsyncClient(timeout=120, trust_env=False) as client:

        async def one(body: dict[str, Any]) -> None:
            async with gate:
                since = time.perf_counter()
                response = await client.post(f"{url}/v1/chat/completions", json=body)
                response.raise_for_status()
                each.append(time.perf_counter() - since)

        since = time.perf_counter()
        await asyncio.gather(*map(one, requests))
        return time.perf_counter() - since, each


def ready(url: str) -> None:
    for _ in range(600):
        try:
            httpx2.get(f"{url}/health", timeout=1)
            return
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


def row(took: Sequence[tuple[float, list[float]]], requests: int) -> dict[str, float]:
    """Requests per second (the median round), and latencies of all rounds."""
    each = sorted(one for _, own in took for one in own)
    return {
        "requests_per_second": round(requests / statistics.median(total for total, _ in took), 2),
        "p50_ms": round(1000 * each[len(each) // 2], 1),
        "p99_ms": round(1000 * each[min(len(each) - 1, int(0.99 * len(each)))], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=48)
    options = parser.parse_args()
    engine_process, engine = started(stub)
    fronts = {f"batch {batch}": started(front, engine, batch) for batch in (16, 1)}
    try:
        for _, url in fronts.values():
            ready(url)
            asyncio.run(ask(url, bodies(HELD_OUT.start, 4)))  # the first pay for memory
        took: dict[str, list[tuple[float, list[float]]]] = {}
        for number in range(options.rounds):
            requests = bodies(HELD_OUT.start + 1000 + number * options.requests, options.requests)
            for name, (_, url) in fronts.items():
                for kind in ("new", "remembered"):
                    took.setdefault(f"{name}, {kind}", []).append(asyncio.run(ask(url, requests)))
        found = {name: row(own, options.requests) for name, own in took.items()}
        save("serving", {"at_once": AT_ONCE, "pictures": "336 x 336, tiny, prumerge", "front": found})
    finally:
        for process, _ in [*fronts.values(), (engine_process, "")]:
            process.terminate()


if __name__ == "__main__":
    main()
