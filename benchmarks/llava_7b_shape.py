"""A checkpoint folder of LLaVA-1.5-7B's shape, two decoder layers deep, loaded by its path and asked.

Random weights (the answer means nothing) in bfloat16: the whole vision tower, projector, vocabulary and width
of the 7B model, but two of its 32 decoder layers, to fit anywhere. Prefill is measured with all 576 visual
tokens and with few.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

import torch
from measure import DEVICE, save
from shapes import llava_7b
from transformers import AutoProcessor, LlavaForConditionalGeneration

import prumerge
from prumerge.generate.answer import answer
from prumerge.tiny import WEIGHTS, samples

LAYERS, ROUNDS = 2, 5


def checkpoint(folder: Path) -> None:
    """Write the checkpoint; tokenizer and image processor are the embedded model's."""
    processor = AutoProcessor.from_pretrained(WEIGHTS)
    words = processor.tokenizer
    config = llava_7b(
        image_token=words.convert_tokens_to_ids("<image>"),
        num_hidden_layers=LAYERS,
        pad_token_id=words.pad_token_id,
        eos_token_id=None,
    )
    torch.set_default_dtype(torch.bfloat16)
    model = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="llava-7b-shape-"))
    try:
        checkpoint(folder)
        model, processor = prumerge.load(str(folder))
        model.to(DEVICE)
    finally:
        shutil.rmtree(folder)
    image = prumerge.open_image(samples()[0].path)
    methods = [
        None,
        *(prumerge.make(spec) for spec in ("none", "prumerge_plus:keep=143", "prumerge:keep=39")),
    ]
    seen: dict[str, list] = {}
    for turn in range(ROUNDS + 1):
        for method in methods:
            told = answer(model, processor, image, "what is in the picture?", method, max_new_tokens=4)
            if turn:  # the first turn warms up
                seen.setdefault(told.method, []).append(told)
    report = {}
    for name, told in seen.items():
        middle = {
            stage: statistics.median(getattr(one, stage) for one in told)
            for stage in ("encode_ms", "reduce_ms", "prefill_ms", "decode_ms")
        }
        report[name] = {
            "visual_tokens": told[0].visual_tokens,
            "prompt_tokens": told[0].prompt_tokens,
            **middle,
        }
    base = report["untouched"]["prefill_ms"]
    ratios = {name: row["prefill_ms"] / base for name, row in report.items()}
    save("llava_7b_shape", {"decoder_layers": LAYERS, "stages": report, "prefill_over_untouched": ratios})


if __name__ == "__main__":
    main()
