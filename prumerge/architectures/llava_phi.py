"""LLaVA-Phi (arXiv 2401.02330), and TinyLLaVA (2402.14289) with Phi: LLaVA whose head has Phi's bias."""

from __future__ import annotations

from typing import no_type_check

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration


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
