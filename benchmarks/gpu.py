"""What only a GPU can tell, in one run of about two minutes: the same answers as on a CPU, and the times.

agreement  every method on the embedded model: answers and kept tokens on the GPU beside the CPU's
stages     `prumerge bench` on a LLaVA of 7B's shape (random weights, bfloat16), beside the roofline
decisions  every method before the language model on 576 x 1024 tokens, alone and for 32 pictures together
sizes      attention in proportion to sizes: more channels beside a mask, at a 7B layer's shape
graphs     the same shape's language model reads a prompt: launched kernel by kernel, and as one CUDA graph
answers    the same shape's answers to one prompt, with a cache that grows and with a static one
training   a step of LoRA (rank 128) on the same shape with 576, 144 and 36 visual tokens, one row and four
four_bits  the embedded model in 4 bits (bitsandbytes) trained by LoRA: losses of its first and last steps

    python benchmarks/gpu.py [--only sizes,stages] [--small]

A part that fails is told by its error in the result and by exit code 1, and the others go on. `--small` takes
shapes that a CPU can compute, to try the script; nothing is saved then.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from gpu_launches import BUDGETS, WORDS, answers, graphs
from launches import operators, pictures
from measure import DEVICE, RESULTS, rounds
from shapes import random_7b
from sizes import measured as sizes_measured
from transformers import AutoProcessor

import prumerge
from prumerge.bench.case import Case
from prumerge.bench.machine import measured as machine_measured
from prumerge.bench.record import record
from prumerge.bench.report import as_dict, sentences
from prumerge.bench.run import measure
from prumerge.catalogue import built_in, entry
from prumerge.errors import PrumergeError
from prumerge.loading.prompts import prepare_batch
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.tiny import WEIGHTS, samples

KEEP = 64
CASES = (
    "none",
    "prumerge_plus:keep=144",
    "prumerge:keep=144",
    "spatial:keep=144",
    "prumerge:keep=36",
    "medoids:keep=36",
)
RANK = 128


def spec_of(name: str) -> str:
    """A method with 64 tokens, or as it is where it cannot be told a number."""
    try:
        return str(prumerge.make(f"{name}:keep={KEEP}"))
    except PrumergeError:
        return name


def agreement(small: bool) -> dict[str, Any]:
    """For each method, of a padded batch of prompts: answers equal to the CPU's, and the share of kept
    tokens that are the same. In bfloat16 scores tie that float32 tells apart: no equality is due."""
    shown = samples()[: 2 if small else 8]
    on_cpu, processor = prumerge.load("tiny")
    spread, _ = prumerge.load("tiny", device_map="auto" if DEVICE == "cuda" else None)
    half, _ = prumerge.load("tiny", dtype=torch.bfloat16)
    models = {"float32": spread, "bfloat16": half.to(DEVICE)}
    images = [prumerge.open_image(one.path) for one in shown]
    questions = ["what is in the picture?", "is there a star in the picture?"] * len(images)
    inputs = prepare_batch(processor, [[one] for one in images], questions[: len(images)])
    found: dict[str, Any] = {}
    for name in built_in():
        spec = spec_of(name)
        try:
            expected = said(on_cpu, inputs, spec)
        except PrumergeError as error:  # what needs frames
            found[name] = {"refused": str(error)}
            continue
        row: dict[str, Any] = {"spec": spec, "prompts": len(expected)}
        for where, model in models.items():
            row[f"{where}_answers"] = int((said(model, inputs, spec) == expected).all(dim=1).sum())
        if entry(name).place == "before the language model":
            base = kept(on_cpu, inputs, spec)
            for where, model in models.items():
                row[f"{where}_kept"] = sum(map(same, base, kept(model, inputs, spec))) / len(base)
        found[name] = row
    return found


def said(model: Any, inputs: Any, spec: str) -> torch.Tensor:
    """The first eight tokens of each answer."""
    with prumerge.attach(model, spec):
        held = inputs.to(model.device, model.dtype)
        return model.generate(**held, max_new_tokens=8, min_new_tokens=8, do_sample=False)[:, -8:].cpu()


def same(one: torch.Tensor, other: torch.Tensor) -> float:
    """The share of tokens that both keep, of all that either does."""
    ours, theirs = set(one.tolist()), set(other.tolist())
    return len(ours & theirs) / len(ours | theirs)


@torch.inference_mode()
def kept(model: Any, inputs: Any, spec: str) -> list[torch.Tensor]:
    """The kept index of each picture."""
    pipeline, prompt = Pipeline(spec), Prompt.read(model, inputs.to(model.device, model.dtype))
    return [one.reduction.index.cpu() for one in pipeline.decide(pipeline.encode(prompt))]


def stages(small: bool) -> dict[str, Any]:
    """All stages of a 7B's shape by method and batch, beside the prediction for this very machine."""
    processor = AutoProcessor.from_pretrained(WEIGHTS)
    model = random_7b(processor, small=small)
    image = prumerge.open_image(samples()[0].path)
    pipelines = [Pipeline(spec) for spec in (CASES[:2] if small else CASES)]
    cases = []
    for batch in (1, 2) if small else (1, 8, 32):
        inputs = prepare_batch(processor, [[image]] * batch, ["what is in the picture?"] * batch)
        cases += [Case(model, each, inputs.to(DEVICE), 8) for each in pipelines]
    machine = machine_measured(torch.device(DEVICE), model.dtype, strict=False)
    found = measure(cases, machine, 1 if small else 5)
    return {
        "cases": [as_dict(one) for one in found],
        "words": sentences(found),
        "predicted_for": machine.note,
    }


def decisions(small: bool) -> dict[str, Any]:
    """Milliseconds of the decide step, kernels asked for, for one picture and for 32 together."""
    found = {}
    described = [entry(name) for name in built_in()]
    for one in described:
        if one.place != "before the language model" or one.video:
            continue
        method, batch = prumerge.make(spec_of(one.name)), pictures(1024, (1, 24, 24))
        calls: dict[str, Callable[[], Any]] = {
            "one_ms": partial(method.decide, batch[:1]),
            "of_32_ms": partial(method.decide, batch),
        }
        with torch.inference_mode():
            times = rounds(calls, 2 if small else 9)
            found[one.name] = {**times, "operators": operators(calls["one_ms"])}
    return found


def sizes(small: bool) -> dict[str, Any]:
    """Attention of one layer in bfloat16, by columns."""
    with torch.inference_mode():
        found = {
            str(columns): sizes_measured(32, 32, 128, columns, torch.bfloat16)
            for columns in ((64, 256) if small else (64, 128, 256, 512, 1024, 2304, 4608))
        }
        if DEVICE == "cuda":  # compiled for each shape
            for columns in ("1024", "2304"):
                found[columns]["flex_over_plain"] = flex(int(columns)) / found[columns]["plain"]
    return found


def flex(columns: int) -> float:
    """Milliseconds by FlexAttention, compiled, with sizes as a change of its scores."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    query, key, value = (
        torch.randn(1, 32, columns, 128, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)
    )
    bias = torch.rand(columns, device=DEVICE) * 4
    causal = create_block_mask(lambda b, h, i, j: i >= j, None, None, columns, columns, device=DEVICE)
    compiled = torch.compile(flex_attention, dynamic=False)

    def run() -> torch.Tensor:
        return compiled(query, key, value, lambda s, b, h, i, j: s + bias[j], block_mask=causal)

    return rounds({"flex": run}, 15)["flex"]


def training(small: bool) -> list[dict[str, Any]]:
    """A step of LoRA and projector: milliseconds and peak memory, by rows and visual tokens."""
    from peft import LoraConfig, get_peft_model

    processor = AutoProcessor.from_pretrained(WEIGHTS)
    model = random_7b(processor, small=small)
    targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=targets, modules_to_save=["multi_modal_projector"]
    )
    adapted = get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=1e-4)
    image = model.config.image_token_id

    def example(batch: int) -> dict[str, torch.Tensor]:
        ids = torch.randint(10, 400, (batch, WORDS), device=DEVICE)
        places = torch.full((batch, 576), image, device=DEVICE)
        ids = torch.cat([ids[:, :5], places, ids[:, 5:]], dim=1)
        labels = torch.where(torch.arange(ids.shape[1], device=DEVICE) < 5 + 576, -100, ids)
        pixels = torch.randn(batch, 3, 336, 336, device=DEVICE, dtype=torch.bfloat16)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": pixels,
            "labels": labels,
        }

    def step(kept: int, inputs: dict[str, torch.Tensor]) -> None:
        with prumerge.attach(adapted, f"spatial:keep={kept}"):
            adapted(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    weights = sum(each.numel() * each.element_size() for each in adapted.parameters())
    found = []
    for batch in (1, 2) if small else (1, 4):
        inputs = example(batch)
        times = rounds({str(kept): partial(step, kept, inputs) for kept in BUDGETS}, 2 if small else 7)
        for kept in BUDGETS:
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            step(kept, inputs)
            peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
            found.append(
                {
                    "batch": batch,
                    "visual_tokens": kept,
                    "words": WORDS,
                    "ms": times[str(kept)],
                    "ratio": times[str(kept)] / times[str(BUDGETS[0])],
                    "rule": (kept + WORDS) / (BUDGETS[0] + WORDS),
                    "above_weights_mib": (peak - weights) / 2**20,
                }
            )
    return found


def four_bits(small: bool) -> dict[str, Any]:
    """Loss with 36 to 144 visual tokens, of the language model in NF4, over 80 steps of 8 rows."""
    from transformers import BitsAndBytesConfig

    from prumerge.train import train
    from prumerge.train.quick import drawn_rows
    from prumerge.train.recipe import Recipe

    kept_whole = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=kept_whole,
    )
    model, processor = prumerge.load("tiny", quantization_config=config, device_map={"": DEVICE})
    steps = 4 if small else 80
    recipe = Recipe(rank=16, alpha=32, rate=1e-3, steps=steps, batch=8, bf16=DEVICE == "cuda")
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(
            model,
            processor,
            drawn_rows(8 * steps),
            "prumerge",
            output=f"{folder}/run",
            budgets="36-144",
            recipe=recipe,
            merge=False,
        )
    losses = [one["loss"] for one in outcome.log if "loss" in one]
    return {"steps": outcome.steps, "losses": losses}


PARTS = {
    "agreement": agreement,
    "sizes": sizes,
    "decisions": decisions,
    "stages": stages,
    "graphs": graphs,
    "answers": answers,
    "training": training,
    "four_bits": four_bits,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    path = RESULTS / "gpu.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in options.only.split(","):
        start = time.monotonic()
        try:
            found[name] = PARTS[name](options.small)
        except Exception:  # the others are worth having
            found[name] = {"error": traceback.format_exc()}
        found.setdefault("seconds", {})[name] = round(time.monotonic() - start, 1)
        print(name, found["seconds"][name], json.dumps(found[name])[-1500:], flush=True)
        if not options.small:
            path.write_text(json.dumps({**found, **record()}, indent=1) + "\n")
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
    if any("error" in found[name] for name in options.only.split(",")):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
