"""Linformer and Reformer without training, against reduction: what they answer, and what they cost.

    OMP_NUM_THREADS=1 python benchmarks/prefix.py [--only cost] [--questions 160] [--rounds 3]

The plan, written before the first run:

accuracy: the embedded model on held-out questions, one a picture. `linformer` (all 576 tokens go on, keys and
values of the layers behind the first become means) by even cells and by medoids, `lsh` (Reformer's buckets as
groups, means go on), and plain reduction by the same groups (`pool`) and by `medoids`, at 16, 36 and 144,
beside `none`. Paired differences with 95 % intervals; nothing is chosen by the result.

cost: a random Llama (4 layers, 8 heads of 64, MLP of 1,408) behind 576 and 2,304 visual tokens and 40 words:
processor time of a prefill and of one step on its cache, and the cache's size. `pool` from a sixteenth to
three quarters shows how many tokens plain reduction may keep at the prefill that `linformer` costs. A 7B
model spends less of its prefill on attention (`attention_share`: multiplications of attention over all), so
there `linformer` gains less.

clip: 16,384 tokens in 32 frames, random keys: `lsh` as pre-clustering for `medoids`, and each alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import torch
from measure import RESULTS, rounds, save
from methods import a_video
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import prumerge
from prumerge.evaluate.statistics import compare
from prumerge.layers.pruning import pruning
from prumerge.loading.prompts import prepare_batch
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.tiny import held_out

KEPT = (16, 36, 144)
OF = ("pool", "medoids", "linformer:by=pool", "linformer:by=medoids", "lsh")
RIVALS = (
    ("linformer:by=pool", "pool"),
    ("linformer:by=medoids", "medoids"),
    ("lsh", "pool"),
    ("lsh", "medoids"),
)
TIMED = ("none", "pool:keep=1/16", "pool:keep=1/4", "pool:keep=1/2", "pool:keep=3/4", "linformer:keep=1/16")
WIDTH, INNER, LAYERS, WORDS, IMAGE = 512, 1408, 4, 40, 99
SEVEN = (4096, 11008)


def at(method: str, keep: int) -> str:
    return f"{method}{',' if ':' in method else ':'}keep={keep}"


def in_numbers(spec: str, tokens: int) -> str:
    """A share of the tokens as their number."""
    method, _, share = spec.partition("=")
    above, _, below = share.partition("/")
    return f"{method}={tokens * int(above) // int(below)}" if share else spec


def accuracy(count: int, batch: int = 20) -> dict[str, Any]:
    """Who is right about what, picture by picture."""
    model, processor = prumerge.load("tiny")
    specs = ["none", *(at(method, keep) for keep in KEPT for method in OF)]
    pipelines, right = {spec: Pipeline(spec) for spec in specs}, {spec: [] for spec in specs}
    asked: Iterator[Any] = held_out(count)
    while about := list(islice(asked, batch)):
        inputs = prepare_batch(processor, [[image] for image, _ in about], [one.text for _, one in about])
        prompt = Prompt.read(model, inputs)
        pictures = pipelines["none"].encode(prompt)
        for spec, pipeline in pipelines.items():
            decisions = pipeline.decide(pictures)
            shorter = pipeline.splice(prompt, decisions, pipeline.project(prompt, decisions))
            columns = pipeline.columns(prompt, shorter, decisions)
            with pruning(model, pipeline.placed.layers, *columns):
                said = model.generate(**shorter, max_new_tokens=8, do_sample=False)
            texts = processor.batch_decode(said[:, shorter["input_ids"].shape[1] :], skip_special_tokens=True)
            right[spec] += [
                float(text.strip() == one.answer) for text, (_, one) in zip(texts, about, strict=True)
            ]
    pictures_of = list(map(str, range(count)))

    def gap(one: str, other: str) -> dict[str, Any]:
        return {
            "first": one,
            "second": other,
            **asdict(compare(right[one], right[other], pictures_of)),
        }

    return {
        "questions": count,
        "right": {spec: 100 * sum(of) / count for spec, of in right.items()},
        "against_none": [gap(spec, "none") for spec in specs[1:]],
        "rivals": [gap(at(one, keep), at(other, keep)) for keep in KEPT for one, other in RIVALS],
    }


def a_model(side: int) -> LlavaForConditionalGeneration:
    """Random weights; only time is of interest."""
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=128,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=4096,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    ).eval()


def attention_share(columns: int, width: int, inner: int) -> float:
    """Of a layer's multiplications in a causal prefill, those of attention itself."""
    attention, rest = columns * width, 4 * width * width + 3 * width * inner
    return attention / (attention + rest)


def cost(side: int, count: int) -> dict[str, Any]:
    model, tokens = a_model(side), (side // 14) ** 2
    words = torch.randint(10, 90, (1, WORDS))
    ids = torch.cat([words[:, :10], torch.full((1, tokens), IMAGE), words[:, 10:]], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["pixel_values"] = torch.randn(1, 3, side, side)
    prompt = Prompt.read(model, inputs)
    pictures = Pipeline("none").encode(prompt)
    caches: dict[str, Any] = {}
    read: dict[str, tuple[Pipeline, dict[str, Any], Any]] = {}
    for spec in TIMED:
        pipeline = Pipeline(in_numbers(spec, tokens))
        decisions = pipeline.decide(pictures)
        shorter = pipeline.splice(prompt, decisions, pipeline.project(prompt, decisions))
        read[spec] = pipeline, shorter, pipeline.columns(prompt, shorter, decisions)

    def prefill(spec: str) -> None:
        pipeline, shorter, columns = read[spec]
        with pruning(model, pipeline.placed.layers, *columns):
            caches[spec] = model(**shorter, logits_to_keep=1, use_cache=True).past_key_values

    def steps(spec: str) -> None:
        """Four, each the first behind the prompt."""
        pipeline, shorter, columns = read[spec]
        length, cache = shorter["input_ids"].shape[1], caches[spec]
        with pruning(model, pipeline.placed.layers, *columns):
            for _ in range(4):
                model(
                    input_ids=words[:, :1],
                    attention_mask=torch.ones(1, length + 1, dtype=torch.long),
                    position_ids=torch.tensor([[length]]),
                    past_key_values=cache,
                )
                cache.crop(-1)

    reading = rounds({spec: partial(prefill, spec) for spec in TIMED}, count, time.process_time)
    step = rounds({spec: partial(steps, spec) for spec in TIMED}, 9 * count, time.process_time)
    return {
        "attention_share": attention_share(ids.shape[1], WIDTH, INNER),
        "attention_share_7b": attention_share(ids.shape[1], *SEVEN),
        "prefill_ms": reading,
        "step_ms": {spec: milliseconds / 4 for spec, milliseconds in step.items()},
        "cache_mib": {
            spec: sum(2 * layer.keys.numel() * 4 for layer in cache.layers) / 2**20
            for spec, cache in caches.items()
        },
    }


def of_clip(count: int) -> dict[str, float]:
    clip = a_video()
    specs = ("medoids:keep=256", "lsh:keep=256", "lsh:keep=2048", "lsh:keep=2048+medoids:keep=256")
    return rounds({spec: partial(prumerge.make(spec), clip) for spec in specs}, count, time.process_time)


def costs(count: int) -> dict[str, Any]:
    return {"rounds": count, **{str((side // 14) ** 2): cost(side, count) for side in (336, 672)}}


PARTS = {"accuracy": accuracy, "cost": costs, "clip_ms": of_clip}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        found = {
            part: PARTS[part](options.questions if part == "accuracy" else options.rounds)
            for part in options.only
        }
    path = RESULTS / "prefix.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    save("prefix", {**{part: before[part] for part in PARTS if part in before}, **found})


if __name__ == "__main__":
    main()
