"""What launching kernels from Python costs one prompt on a GPU; `gpu.py` runs these two parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import torch
from measure import DEVICE, rounds
from shapes import random_7b
from transformers import AutoProcessor

import prumerge
from prumerge.bench.machine import measured as machine_measured
from prumerge.generate.stopwatch import Stopwatch
from prumerge.loading.prompts import prepare_batch
from prumerge.tiny import WEIGHTS, samples

BUDGETS, WORDS, NEW = (576, 144, 36), 64, 33
"""Visual tokens; words of a prompt; tokens of an answer."""


def graphs(small: bool) -> list[dict[str, Any]]:
    """Milliseconds until the language model has read a prompt, its kernels launched one by one from Python,
    and replayed as one CUDA graph, as engines that serve do; and the least that this machine takes, for its
    products or to read the weights."""
    reader = random_7b(AutoProcessor.from_pretrained(WEIGHTS), small=small).model.language_model
    machine = machine_measured(torch.device(DEVICE), torch.bfloat16, strict=False)
    rate = machine.rate("fp16")
    weights = sum(each.numel() for name, each in reader.named_parameters() if "embed_tokens" not in name)
    found = []
    for batch in (1, 8):
        for kept in BUDGETS:
            prompt = torch.randn(
                batch, kept + WORDS, reader.config.hidden_size, device=DEVICE, dtype=torch.bfloat16
            )
            read = partial(reader, inputs_embeds=prompt, use_cache=False)
            with torch.inference_mode():
                calls: dict[str, Callable[[], Any]] = {"launched_ms": read}
                if DEVICE == "cuda":
                    calls["graph_ms"] = recorded(read).replay
                found.append(
                    {
                        "batch": batch,
                        "visual_tokens": kept,
                        "words": WORDS,
                        **rounds(calls, 2 if small else 15),
                        "bound_ms": 2e3 * weights * max(batch * (kept + WORDS) / rate, 1 / machine.bandwidth),
                    }
                )
    return found


def recorded(call: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    """What a call launches, as a graph; its tensors stay where they are."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # libraries choose their kernels before
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def answers(small: bool) -> list[dict[str, Any]]:
    """Milliseconds until the first token and for each further one of an answer to one prompt, through an
    attached method: launched with a cache that grows, and with a static one, for which Transformers compiles
    the model on a GPU."""
    processor = AutoProcessor.from_pretrained(WEIGHTS)
    model, image = random_7b(processor, small=small), prumerge.open_image(samples()[0].path)
    inputs = prepare_batch(processor, [[image]], ["what is in the picture?"]).to(DEVICE, torch.bfloat16)
    found = []
    for kept, cache in product(BUDGETS[:1] if small else BUDGETS, ("dynamic", "static")):
        rows = []
        with prumerge.attach(model, f"spatial:keep={kept}"):
            for _ in range(2 if small else 6):
                watch = Stopwatch(torch.device(DEVICE))
                model.generate(
                    **inputs,
                    max_new_tokens=NEW,
                    min_new_tokens=NEW,
                    do_sample=False,
                    streamer=watch,
                    cache_implementation=cache,
                )
                rows.append((watch.laps[1], (watch.laps[NEW] - watch.laps[1]) / (NEW - 1)))
        found.append(
            {
                "visual_tokens": kept,
                "cache": cache,
                "once_ms": rows[0][0] + rows[0][1] * (NEW - 1),
                "first_token_ms": median(first for first, _ in rows[1:]),
                "each_ms": median(each for _, each in rows[1:]),
            }
        )
        print(found[-1], flush=True)
    return found
