"""Pictures to embeddings: the untouched `get_image_features` beside encode + PruMerge + project.

A LLaVA-1.5-7B vision side (CLIP ViT-L/14 at 336 px, random weights, MLP projector to 4096); the language
model is a stub, it does not take part.
"""

from __future__ import annotations

import torch
from measure import DEVICE, rounds, save
from shapes import llava_7b
from transformers import LlavaForConditionalGeneration

import prumerge
from prumerge.models import llava


def vision_side() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    config = llava_7b(image_token=63, intermediate_size=64, num_hidden_layers=1, vocab_size=64)
    return LlavaForConditionalGeneration(config).eval()


def main() -> None:
    model = vision_side().to(DEVICE)
    base, pixels = model.model, torch.randn(1, 3, 336, 336, device=DEVICE)
    method = prumerge.make("prumerge:keep=40")

    def reduced() -> list[torch.Tensor]:
        tokens = llava.encode(base, {"pixel_values": pixels})
        return llava.project(base, [method(one).apply(one) for one in tokens])

    def untouched() -> list[torch.Tensor]:
        return model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output

    with torch.inference_mode():
        [everything] = llava.project(
            base, [one.features for one in llava.encode(base, {"pixel_values": pixels})]
        )
        assert torch.equal(everything, untouched()[0])
        times = rounds({"untouched_ms": untouched, "prumerge_ms": reduced}, count=15)
    save("encoder", {**times, "prumerge_over_untouched": times["prumerge_ms"] / times["untouched_ms"]})


if __name__ == "__main__":
    main()
