"""A step of LoRA training with few visual tokens against one with all, beside what the roofline predicts.

Forward, backward and AdamW, fp32, one thread, batch 1: seconds of the processor, and bytes saved for the
backward pass, on a LLaVA with three decoder layers of width 2048 and two of CLIP ViT-L, random weights.
LoRA (rank 128, no dropout) stands beside all seven matrices of each decoder layer; the projector is trained.

python benchmarks/training.py
"""

from __future__ import annotations

import time
from typing import Any

import torch
from measure import rounds, save
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import prumerge
from prumerge.roofline import configs, hardware
from prumerge.roofline.cost import Setting
from prumerge.roofline.estimate import schedule, workload
from prumerge.roofline.precision import parse
from prumerge.roofline.training import Recipe, Step, training_step

IMAGE, RANK, ROUNDS = 3999, 128, 3
KEPT, WORDS = (576, 144, 36), (64, 200)
CONFIG = LlavaConfig(
    vision_config=CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=2,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    ),
    text_config=LlamaConfig(
        hidden_size=2048,
        intermediate_size=5504,
        num_hidden_layers=3,
        num_attention_heads=16,
        vocab_size=4000,
    ),
    image_token_index=IMAGE,
)


def adapted() -> nn.Module:
    """Frozen but for LoRA in the language model, and for the projector."""
    torch.manual_seed(0)
    targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=targets, modules_to_save=["multi_modal_projector"]
    )
    return get_peft_model(LlavaForConditionalGeneration(CONFIG), lora).train()


def example(words: int) -> dict[str, Tensor]:
    """A picture and so many words, all but five of them the answer."""
    ids = torch.randint(10, 3000, (1, words))
    ids = torch.cat([ids[:, :5], torch.full((1, 576), IMAGE), ids[:, 5:]], dim=1)
    labels = torch.where(torch.arange(ids.shape[1]) < 5 + 576, -100, ids)
    pixels = torch.randn(1, 3, 336, 336)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels,
        "labels": labels,
    }


def saved_bytes(model: nn.Module, inputs: dict[str, Tensor]) -> int:
    """Bytes of the storages that a forward pass keeps for the backward pass, parameters and buffers apart."""
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs)
    return sum(storage.nbytes() for storage in kept.values())


def predicted(kept: int, words: int) -> Step:
    """The same step by the roofline, on any machine: FLOPs and bytes are the same on all."""
    sizes = configs.read(CONFIG.to_dict(), "shallow LLaVA")
    asked = workload(sizes, schedule(str(kept), sizes.language.layers), 576, text=words)
    return training_step(
        sizes, asked, hardware.machine("laptop-cpu"), Setting(parse("w32a32")), Recipe(rank=RANK)
    )


def main() -> None:
    torch.set_num_threads(1)
    model = adapted()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4)

    def step(kept: int, inputs: dict[str, Tensor]) -> None:
        with prumerge.attach(model, f"spatial:keep={kept}"):
            model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def saved(kept: int, inputs: dict[str, Tensor]) -> int:
        with prumerge.attach(model, f"spatial:keep={kept}"):
            return saved_bytes(model, inputs)

    examples = {words: example(words) for words in WORDS}
    cases = {f"{kept} + {words}": (kept, words) for words in WORDS for kept in KEPT}
    calls = {name: lambda k=kept, w=words: step(k, examples[w]) for name, (kept, words) in cases.items()}
    times = rounds(calls, ROUNDS, time.process_time)
    sizes = {name: saved(kept, examples[words]) for name, (kept, words) in cases.items()}
    found: list[dict[str, Any]] = []
    for name, (kept, words) in cases.items():
        full = f"{KEPT[0]} + {words}"
        expected, base = predicted(kept, words), predicted(KEPT[0], words)
        found.append(
            {
                "visual_tokens": kept,
                "words": words,
                "cpu_seconds": times[name] / 1000,
                "cpu_ratio": times[name] / times[full],
                "flops_ratio": expected.whole.flops / base.whole.flops,
                "rule": expected.rule,
                "saved_mib": sizes[name] / 2**20,
                "predicted_saved_mib": expected.memory.activations / 2**20,
                "saved_ratio": sizes[name] / sizes[full],
                "predicted_saved_ratio": expected.memory.activations / base.memory.activations,
            }
        )
    save("training", {"rounds": ROUNDS, "rank": RANK, "dtype": "float32", "steps": found})


if __name__ == "__main__":
    main()
