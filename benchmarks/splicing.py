"""What splicing costs beyond the model's own forward passes, in per cent of the prefill of a 7B model.

The prompt of one question about one picture, LLaVA-1.5-7B's shape. Splicing is everything that `reduce` does
but the tower and the projector (which is replaced by one that hands over zeros): attention and selection,
merging, and shortening the prompt. Prefill is measured on copies one and two decoder layers deep; their
difference is a layer, and 32 of them are what a 7B model takes.
"""

from __future__ import annotations

from typing import Any

import torch
from measure import DEVICE, rounds, save
from shapes import llava_7b
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline

IMAGE, LAYERS, WORDS, ROUNDS = 32000, 32, 60, 3
SPECS = ("none", "prumerge_plus:keep=143", "prumerge:keep=39")


def shallow(layers: int) -> LlavaForConditionalGeneration:
    """Random weights; only time is of interest."""
    torch.set_default_dtype(torch.bfloat16 if DEVICE == "cuda" else torch.float32)
    model = LlavaForConditionalGeneration(llava_7b(image_token=IMAGE, num_hidden_layers=layers))
    torch.set_default_dtype(torch.float32)
    return model.to(DEVICE).eval()


class Nothing(nn.Module):
    """A projector that costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device=DEVICE))

    def forward(self, features: Tensor) -> Tensor:
        return self.weight.expand(len(features), 4096)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    model = shallow(2)
    words = torch.randint(10, 1000, (1, WORDS), device=DEVICE)
    places = torch.full((1, 576), IMAGE, device=DEVICE)
    inputs = {
        "input_ids": torch.cat([words[:, :30], places, words[:, 30:]], dim=1),
        "pixel_values": torch.randn(1, 3, 336, 336, device=DEVICE, dtype=model.dtype),
    }
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    pipelines = {spec: Pipeline(spec) for spec in SPECS}
    pictures = pipelines["none"].encode(Prompt.read(model, inputs))

    def shorter(spec: str) -> dict[str, Any]:
        """All that `reduce` does, but for the tower."""
        prompt, pipeline = Prompt.read(model, inputs), pipelines[spec]
        decisions = pipeline.decide(pictures)
        return pipeline.splice(prompt, decisions, pipeline.project(prompt, decisions))

    prompts = {spec: shorter(spec) for spec in SPECS}
    prefill = {spec: lambda spec=spec: model(**prompts[spec], logits_to_keep=1) for spec in SPECS}
    deep = rounds(prefill, ROUNDS)
    layers = model.model.language_model.layers
    model.model.language_model.layers = layers[:1]
    flat = rounds(prefill, ROUNDS)
    model.model.multi_modal_projector = Nothing()
    spent = rounds({spec: lambda spec=spec: shorter(spec) for spec in SPECS}, 15)
    result = {}
    whole = {spec: flat[spec] + (LAYERS - 1) * (deep[spec] - flat[spec]) for spec in SPECS}
    for spec in SPECS:
        result[spec] = {
            "splicing_ms": spent[spec],
            "prefill_ms": whole[spec],
            "percent_of_full_prefill": 100 * spent[spec] / whole["none"],
            "percent_of_own_prefill": 100 * spent[spec] / whole[spec],
        }
    save(
        "splicing", {"decoder_layers": LAYERS, "measured_layers": 2, "prompt_words": WORDS, "methods": result}
    )


if __name__ == "__main__":
    main()
