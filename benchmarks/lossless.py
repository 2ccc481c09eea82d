"""Is lossless decoding lossless, and what is it worth? The embedded model, drafts over few of its tokens.

    python benchmarks/lossless.py [--questions 1000] [--clips 24]

answers: questions about drawn scenes, greedy, against `generate`; answers are two tokens long. forced: the
same model made to go on to 24 tokens behind the end of its answers, on clips of eight frames (4,608 visual
tokens), where drafts are hard, because it babbles. Passes over all tokens are what decoding one by one takes
once for each token behind the first; drafts cost passes over few tokens beside them.
"""

from __future__ import annotations

import argparse
from itertools import count, islice
from typing import Any

import torch
from measure import save

import prumerge
from prumerge.generate.lossless import Lossless, lossless
from prumerge.loading.prompts import prepare
from prumerge.tiny.benchmarks import video
from prumerge.tiny.questions import questions
from prumerge.tiny.scenes import scene
from prumerge.train.quick import FIRST

METHODS = ("medoids:keep=36", "scope:keep=36", "prumerge:keep=36", "spatial:keep=36")


def greedy(model: Any, inputs: Any, most: int) -> list[int]:
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=most, do_sample=False)
    return generated[0, inputs["input_ids"].shape[1] :].tolist()


def told(found: list[tuple[Lossless, list[int]]]) -> dict[str, float]:
    """Sums over answers."""
    drafted = sum(one.drafted for one, _ in found)
    return {
        "answers": len(found),
        "identical": sum(one.tokens.tolist() == expected for one, expected in found),
        "tokens": sum(len(one.tokens) for one, _ in found),
        "one_by_one": sum(len(one.tokens) - 1 for one, _ in found),
        "passes": sum(one.passes for one, _ in found),
        "drafted": drafted,
        "accepted": sum(one.accepted for one, _ in found) / max(drafted, 1),
        "bytes": sum(one.ratio for one, _ in found) / len(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=24)
    options = parser.parse_args()
    model, processor = prumerge.load("tiny")
    asked = (
        prepare(processor, drawn.image, one.text)
        for drawn in map(scene, count(FIRST))
        for one in questions(drawn, 0, 4)
    )
    answers = []
    for _, inputs in zip(range(options.questions), asked, strict=False):
        answers.append((lossless(model, inputs, METHODS[0], max_new_tokens=8), greedy(model, inputs, 8)))
    result: dict[str, Any] = {"answers": {METHODS[0]: told(answers)}}
    model.generation_config.eos_token_id = None
    forced: dict[str, list[tuple[Lossless, list[int]]]] = {method: [] for method in METHODS}
    clips = (one for one in video(10 * options.clips) if one[1])
    for drawn, about in islice(clips, options.clips):
        inputs = prepare(processor, [frame.image for frame in drawn.frames], about[0].question)
        expected = greedy(model, inputs, 24)
        for method in METHODS:
            found = lossless(model, inputs, method, max_new_tokens=24)
            forced[method].append((found, expected))
    result["forced"] = {method: told(found) for method, found in forced.items()}
    save("lossless", result)


if __name__ == "__main__":
    main()
