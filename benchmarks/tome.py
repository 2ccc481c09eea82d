"""Pictures to embeddings with fewer and fewer tokens in the encoder: ToMe beside encoding without it.

The vision side of LLaVA-1.5-7B (CLIP ViT-L/14 at 336 px, random weights) without its projector: what is timed
is the encoder, with what ToMe adds between attention and MLP of each of its 23 blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from measure import DEVICE, rounds, save
from shapes import llava_7b
from transformers import LlavaForConditionalGeneration

import prumerge
from prumerge.models import llava

SPECS = ("tome:r=0", "tome:r=4", "tome:r=8", "tome:r=16", "tome:keep=64")


def main() -> None:
    torch.manual_seed(0)
    config = llava_7b(image_token=63, intermediate_size=64, num_hidden_layers=1, vocab_size=64)
    base = LlavaForConditionalGeneration(config).eval().to(DEVICE).model
    inputs = {"pixel_values": torch.randn(1, 3, 336, 336, device=DEVICE)}

    def encode(spec: str | None = None) -> Any:
        return llava.encode(base, inputs, None if spec is None else prumerge.make(spec).placed.tower)

    with torch.inference_mode():
        [plain], [unmerged] = encode(), encode("tome:r=0")
        assert torch.equal(plain.features, unmerged.features)
        left = {spec: len(encode(spec)[0]) for spec in SPECS}
        alternatives = {"none": encode, **{spec: lambda spec=spec: encode(spec) for spec in SPECS}}
        times = rounds(alternatives, count=9)
    save(
        "tome",
        {
            "encode_ms": times,
            "tokens_left": left,
            "over_none": {spec: times[spec] / times["none"] for spec in SPECS},
        },
    )


if __name__ == "__main__":
    main()
