"""TinyGPT-V: BLIP-2's tower and Q-Former, two linear layers and Phi-2; the 32 tokens are what is reduced.

Its Phi-2 has layer norms on queries and keys (`qk_layernorm`, which Transformers knows) and an RMS norm on
what attention adds, which Transformers does not (arXiv 2312.16862).
"""

from __future__ import annotations

from typing import no_type_check

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import Blip2Config, Blip2ForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from prumerge.errors import PrumergeError
from prumerge.models._family import Family
from prumerge.models.blip_2 import INPUTS, deliver, encode, project


@no_type_check  # its fields are checked by `strict`
@strict
class TinyGPTVConfig(Blip2Config):
    """BLIP-2's, and the width between the two linear layers."""

    model_type = "tinygpt_v"

    projector_size: int = 4096


class TinyGPTVForConditionalGeneration(Blip2ForConditionalGeneration):
    """BLIP-2 with two linear layers behind the Q-Former, and norms in its Phi."""

    config_class = TinyGPTVConfig

    def __init__(self, config: TinyGPTVConfig) -> None:
        super().__init__(config)
        if config.text_config.model_type != "phi" or not config.text_config.qk_layernorm:
            raise PrumergeError("TinyGPT-V's language model is a Phi with qk_layernorm=True")
        width, size = config.text_config.hidden_size, config.projector_size
        self.language_projection = nn.Sequential(
            nn.Linear(config.qformer_config.hidden_size, size), nn.Linear(size, width)
        )
        for layer in self.language_model.model.layers:
            layer.self_attn.dense = nn.Sequential(layer.self_attn.dense, LlamaRMSNorm(width))
        self.post_init()


FAMILY = Family(
    takes="pictures",
    attention="mean over the Q-Former's queries",
    reduced="behind the Q-Former",
    inputs=INPUTS,
    encode=encode,
    project=project,
    projector=("language_projection",),
    deliver=deliver,
    hands_embeddings=True,
)
