"""LLaVA-Phi and TinyLLaVA with Phi: LLaVA whose language model's head has a bias.

arXiv 2401.02330 and 2402.14289.
"""

from __future__ import annotations

from typing import no_type_check

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from prumerge.models._family import Family
from prumerge.models.llava import INPUTS, encode, project


@no_type_check  # its fields are checked by `strict`
@strict
class LlavaPhiConfig(LlavaConfig):
    """LLaVA's."""

    model_type = "llava_phi"


class LlavaPhiForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with a bias for each word."""

    config_class = LlavaPhiConfig

    def __init__(self, config: LlavaPhiConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=True)
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
