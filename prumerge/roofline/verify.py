"""The formulas against torch: equal to the last integer with FlopCounterMode, on models without weights.

Models stand on the meta device, where attention decomposes into products that the counter sees. (With real
CPU tensors it counts nothing for SDPA, whose CPU kernel it does not know.) Experts are batched for the same
reason: the counter does not know grouped products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    DynamicCache,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen3Config,
    Qwen3MoeConfig,
)

from prumerge.roofline.configs import read, read_language, read_tower
from prumerge.roofline.cost import Op, Setting, connector, decode, prefill, vision_tower

PROMPTS = (616, 80)
SIZES = {
    "Llama, grouped queries": LlamaConfig(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=3,
        num_attention_heads=16,
        num_key_value_heads=4,
    ),
    "Qwen3, head_dim of its own": Qwen3Config(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=3,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
    ),
    "Qwen3-MoE": Qwen3MoeConfig(
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=128,
        num_experts=16,
        num_experts_per_tok=4,
        moe_intermediate_size=256,
        mlp_only_layers=[1],
    ),
}


@dataclass(frozen=True)
class Check:
    """FLOPs of one pass."""

    model: str
    what: str
    formula: int
    counted: int

    @property
    def equal(self) -> bool:
        return self.formula == self.counted


def verify() -> list[Check]:
    """Count every case both ways."""
    with torch.inference_mode():
        return [*_language_models(), *_clip(), *_llava()]


def flops(ops: list[Op]) -> int:
    return sum(op.flops * op.count for op in ops)


def counted(run: Callable[[], Any]) -> int:
    """What torch counts."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _language_models() -> Iterator[Check]:
    for name, config in SIZES.items():
        config._experts_implementation = "batched_mm"
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float16).eval()
        llm, setting = read_language(config.to_dict(), name), Setting(batch=2)
        for tokens in PROMPTS:
            ids = torch.zeros(2, tokens, dtype=torch.long, device="meta")
            cache = DynamicCache(config=config)
            read_prompt = partial(model, input_ids=ids, past_key_values=cache, logits_to_keep=1)
            answer = partial(model, input_ids=ids[:, :1], past_key_values=cache)
            context = [tokens] * llm.layers
            for what, formula, run in (
                ("prefill of", prefill(llm, context, setting), read_prompt),
                ("a token after", decode(llm, context, setting), answer),
            ):
                yield Check(name, f"{what} 2 x {tokens}", flops(formula), counted(run))


def _clip() -> Iterator[Check]:
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    with torch.device("meta"):
        model = CLIPVisionModel._from_config(config, dtype=torch.float16).eval()
    pixels = torch.zeros(1, 3, 336, 336, dtype=torch.float16, device="meta")
    tower = read_tower(config.to_dict())
    formula = flops(vision_tower(tower, 576, 1, Setting()))
    yield Check("CLIP ViT-L/14-336", "a picture", formula, counted(partial(model, pixel_values=pixels)))


def _llava() -> Iterator[Check]:
    config = LlavaConfig()  # the sizes of LLaVA-1.5-7B
    with torch.device("meta"):
        model = LlavaForConditionalGeneration._from_config(config, dtype=torch.float16).eval()
    sizes = read(config.to_dict(), "llava")
    pixels = torch.zeros(1, 3, 336, 336, dtype=torch.float16, device="meta")
    visual, text = 576, 40
    # Transformers looks at the values of ids, so these are real.
    ids = torch.tensor([[config.image_token_id] * visual + [1] * text])
    ops = [
        *vision_tower(sizes.tower, 576, 1, Setting(), whole=True),
        *connector(sizes.projector, visual, Setting()),
        *prefill(sizes.language, [visual + text] * sizes.language.layers, Setting()),
    ]
    run = partial(model, input_ids=ids, pixel_values=pixels, use_cache=True, logits_to_keep=1)
    yield Check("LLaVA-1.5-7B", f"a picture and {text} tokens of text", flops(ops), counted(run))
    for tokens in PROMPTS:
        embeds = torch.zeros(1, tokens, sizes.language.width, dtype=torch.float16, device="meta")
        run = partial(model, inputs_embeds=embeds, use_cache=True, logits_to_keep=1)
        formula = flops(prefill(sizes.language, [tokens] * sizes.language.layers, Setting()))
        yield Check("LLaVA-1.5-7B", f"prefill of {tokens}", formula, counted(run))
