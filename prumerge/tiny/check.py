"""How well does a checkpoint answer? `python -m prumerge.tiny.check [FOLDER] [--count 600]`.

Plain `generate` on held-out scenes with all visual tokens, next to the best answer that does not look.
"""

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from prumerge.tiny import WEIGHTS, held_out
from prumerge.tiny.architecture import vision_tower
from prumerge.tiny.learn_vision import VisionBatches, class_attention, outliers
from prumerge.tiny.questions import PLURALS, Question, questions
from prumerge.tiny.scenes import COLOURS, GRID, HELD_OUT, PICTOGRAMS, SHAPES, TRAIN, WORDS, scene


def answer(model: LlavaForConditionalGeneration, processor: Any, image: Image, text: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=image, text=prompt, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        tokens = model.generate(**inputs, do_sample=False)
    return processor.tokenizer.decode(
        tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    ).strip()


def form(question: Question) -> str:
    """The question without its names: what a guess that does not look can go by."""
    names = {*COLOURS, *SHAPES, *PICTOGRAMS, *PLURALS.values(), *WORDS, "sign"}
    return " ".join("*" if word.strip("?") in names else word for word in question.text.split())


def blind(scenes: int = 1500) -> dict[str, str]:
    """The commonest answer to each form of question."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for seed in range(TRAIN.start, TRAIN.start + scenes):
        for question in questions(scene(seed), count=12):
            seen[form(question)][question.answer] += 1
    return {asked: answers.most_common(1)[0][0] for asked, answers in seen.items()}


def check(folder: Path, count: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Exact match per family: number of questions, model, blind."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    guess = blind()
    right: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for image, question in held_out(count, seed):
        told = answer(model, processor, image, question.text)
        right[question.family].append((told == question.answer, guess.get(form(question)) == question.answer))
    result = {
        family: {"n": len(rows), "model": float(np.mean(rows, 0)[0]), "blind": float(np.mean(rows, 0)[1])}
        for family, rows in right.items()
    }
    batch = VisionBatches(HELD_OUT.start, 64, GRID * GRID, 1)[0]
    number = outliers(class_attention(vision_tower(model), batch["patches"], batch["index"]))
    result["attention outliers"] = {
        "mean": float(number.float().mean()), "least": int(number.min()), "most": int(number.max())
    }  # fmt: skip
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser("prumerge.tiny.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(check(options.folder, options.count, options.seed), indent=1))
