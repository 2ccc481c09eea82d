"""MoE-LLaVA: LLaVA whose language model has several MLPs in some of its layers, and gates.

Each token goes through the `top_k` experts that its gate prefers, weighted by their probabilities, which for
`top_k > 1` are made to sum to 1 (arXiv 2401.15947). The published code's gate (DeepSpeed's) has a capacity
for each expert, over which it drops tokens, and draws the second expert with noise; here every token gets its
experts, without noise.
"""

from __future__ import annotations

import copy
from typing import no_type_check

import torch
from huggingface_hub.dataclasses import strict
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaConfig, LlavaForConditionalGeneration

from prumerge.models._family import Family
from prumerge.models._weights import weight_of
from prumerge.models.llava import INPUTS, encode, project


@no_type_check  # its fields are checked by `strict`
@strict
class MoELlavaConfig(LlavaConfig):
    """LLaVA's, and the experts."""

    model_type = "moe_llava"

    experts: dict | None = None
    """How many experts each layer has that has any, by its number (as text: JSON has no other keys)."""
    top_k: int = 2


class Experts(nn.Module):
    """In place of a layer's MLP: copies of it, and which of them a token goes through."""

    def __init__(self, mlp: nn.Module, width: int, count: int, top_k: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, count, bias=False)
        self.experts = nn.ModuleList(copy.deepcopy(mlp) for _ in range(count))
        self.top_k = min(top_k, count)

    def forward(self, hidden: Float[Tensor, "B S H"]) -> Float[Tensor, "B S H"]:
        tokens = hidden.flatten(0, 1)
        likely = F.linear(tokens.float(), weight_of(self.gate, "weight").float()).softmax(-1)
        weights, chosen = likely.topk(self.top_k)  # [T, top_k]
        if self.top_k > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        mixed = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, place = (chosen == number).nonzero(as_tuple=True)
            weight = weights[token, place, None].to(tokens.dtype)
            mixed = mixed.index_add(0, token, weight * expert(tokens[token]))
        return mixed.view_as(hidden)


class MoELlavaForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA whose language model has experts."""

    config_class = MoELlavaConfig

    def __init__(self, config: MoELlavaConfig) -> None:
        super().__init__(config)
        for number, count in (config.experts or {}).items():
            layer = self.model.language_model.layers[int(number)]
            layer.mlp = Experts(layer.mlp, config.text_config.hidden_size, count, config.top_k)
        self.post_init()


FAMILY = Family(
    takes="pictures",
    attention="class token, or with SigLIP the mean over patches",
    reduced="before the projector",
    inputs=INPUTS,
    encode=encode,
    project=project,
    merges=True,
)
