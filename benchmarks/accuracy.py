"""Held-out questions to the embedded model at one budget of visual tokens, method by method.

    python benchmarks/accuracy.py [--questions 600] [--tokens 36]

Training-free: the model was trained on all tokens or uniformly drawn ones. Exact match; every method answers
the same questions about the same pictures, so differences are paired, with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import islice

import numpy as np
import torch
from measure import save
from rich.console import Console
from rich.progress import track
from rich.table import Table

import prumerge
from prumerge.splice import encode, splice
from prumerge.tiny import held_out

BATCH = 16


def specs(tokens: int) -> list[str]:
    """PruMerge's extra token counts: every method but `none` hands over exactly `tokens`."""
    simple = [f"{name}:keep={tokens}" for name in ("topk", "spatial", "pool", "random", "sequential")]
    return ["none", f"prumerge:keep={tokens - 1}", f"prumerge_plus:keep={tokens - 1}", *simple]


@torch.inference_mode()
def answers(count: int, methods: list[str]) -> dict[str, list[tuple[str, bool]]]:
    """For each method the family of each question and whether its answer was right."""
    model, processor = prumerge.load("tiny")
    right: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    questions_left = held_out(count)
    batches = [list(islice(questions_left, BATCH)) for _ in range(-(-count // BATCH))]
    for batch in track(batches, description="asking", console=Console(stderr=True)):
        images, questions = zip(*batch, strict=True)
        prompts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}],
                add_generation_prompt=True,
            )
            for question in questions
        ]
        inputs = processor(images=list(images), text=prompts, padding=True, return_tensors="pt")
        encoded = encode(model, inputs)  # once for all methods
        for spec in methods:
            method = prumerge.make(spec)
            prompt = splice(model, inputs, [(tokens, method(tokens)) for tokens in encoded])
            said = model.generate(**prompt, max_new_tokens=8, do_sample=False)[
                :, prompt["input_ids"].shape[1] :
            ]
            for question, text in zip(
                questions, processor.batch_decode(said, skip_special_tokens=True), strict=True
            ):
                right[spec].append((question.family, text.strip() == question.answer))
    return right


def difference(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Mean of a - b over the same questions, in points, with a 95 % paired bootstrap interval."""
    draws = np.random.default_rng(0).integers(0, len(a), (10_000, len(a)))
    low, high = np.quantile((a - b)[draws].mean(1), [0.025, 0.975])
    return {"points": 100 * float((a - b).mean()), "low": 100 * float(low), "high": 100 * float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=36)
    options = parser.parse_args()
    methods = specs(options.tokens)
    right = answers(options.questions, methods)

    families = sorted({family for family, _ in right["none"]})
    scores = {
        spec: {family: 100 * float(np.mean([ok for f, ok in rows if f == family])) for family in families}
        | {"all": 100 * float(np.mean([ok for _, ok in rows]))}
        for spec, rows in right.items()
    }
    table = Table("method", *families, "all", title=f"{options.questions} questions, % right")
    for spec, row in scores.items():
        table.add_row(spec, *(f"{value:.1f}" for value in row.values()))
    Console(width=120).print(table)
    marks = {spec.partition(":")[0]: np.array([ok for _, ok in rows], float) for spec, rows in right.items()}
    pairs = [("prumerge", "spatial"), ("spatial", "sequential"), ("prumerge", "topk"), ("none", "prumerge")]
    differences = {f"{a} - {b}": difference(marks[a], marks[b]) for a, b in pairs}
    save(
        "accuracy",
        {
            "questions": options.questions,
            "tokens": options.tokens,
            "right": scores,
            "differences": differences,
        },
    )


if __name__ == "__main__":
    main()
