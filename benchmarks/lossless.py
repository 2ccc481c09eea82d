"""Is lossless decoding lossless, and what is it worth? Drafts over few visual tokens, verified over all.

    python benchmarks/lossless.py [--questions 1000] [--clips 8] [--pictures 12]

answers: questions to the embedded model about drawn scenes, greedy, against `generate`; answers are two
tokens long. clips: the same model made to go on to 24 tokens behind the end of its answers, on clips of eight
frames (4,608 visual tokens), where drafts are hard, because it babbles. pictures: a SmolLM2 behind a ViT-S/14
(`real`, whose parts must be installed) made to say 24 tokens about pictures of easy-VQA's test split. Drafts
attend to a token in proportion to the patches it stands for (sizes), and once to all alike (plain). Passes
over all tokens are what decoding one by one takes once for each token behind the first; drafts cost passes
over few tokens beside them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import count, islice, product
from typing import Any

import easy_vqa
import torch
from measure import part_of, save

import prumerge
from prumerge.evaluate.tasks.easy_vqa import SIDE
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


def forced(model: Any, prompts: Iterable[Any]) -> dict[str, dict[str, dict[str, float]]]:
    """24 tokens behind each prompt, whatever ends an answer: by method, with sizes and plain."""
    model.generation_config.eos_token_id = None
    found = defaultdict[tuple[str, str], list[tuple[Lossless, list[int]]]](list)
    for inputs in prompts:
        expected = greedy(model, inputs, 24)
        for method, told_sizes in product(METHODS, (True, False)):
            drafted = lossless(model, inputs, method, max_new_tokens=24, sizes=told_sizes)
            found[method, "sizes" if told_sizes else "plain"].append((drafted, expected))
    return {
        method: {reading: told(found[method, reading]) for reading in ("sizes", "plain")}
        for method in METHODS
    }


def clips(processor: Any, wanted: int) -> Iterator[Any]:
    """Questions about clips of eight frames."""
    for drawn, about in islice((one for one in video(10 * wanted) if one[1]), wanted):
        yield prepare(processor, [frame.image for frame in drawn.frames], about[0].question)


def on_pictures(wanted: int) -> dict[str, Any]:
    """A wish about pictures of easy-VQA's test split, to a real language model."""
    model, processor = prumerge.load("real")
    return forced(model, pictures(processor, wanted))


def pictures(processor: Any, wanted: int) -> Iterator[Any]:
    paths = list(easy_vqa.get_test_image_paths().values())
    for path in paths[:: len(paths) // wanted][:wanted]:
        shown = prumerge.open_image(path).resize((SIDE, SIDE))
        yield prepare(processor, shown, "Describe the picture.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=12)
    options = parser.parse_args()
    result = {"pictures": part_of("lossless", "pictures", lambda: on_pictures(options.pictures))}
    model, processor = prumerge.load("tiny")
    asked = (
        prepare(processor, drawn.image, one.text)
        for drawn in map(scene, count(FIRST))
        for one in questions(drawn, 0, 4)
    )
    answers = []
    for _, inputs in zip(range(options.questions), asked, strict=False):
        answers.append((lossless(model, inputs, METHODS[0], max_new_tokens=8), greedy(model, inputs, 8)))
    result["answers"] = {METHODS[0]: {"sizes": told(answers)}}
    result["clips"] = forced(model, clips(processor, options.clips))
    save("lossless", result)


if __name__ == "__main__":
    main()
