"""Model classes that Transformers has not, each composed of its parts: one published architecture = one file.

A file holds a configuration and a model that derive from the nearest ones of Transformers and change what
differs. Importing this package makes them known to `AutoConfig` and `AutoModelForImageTextToText`, so that
they are saved and loaded like any other.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText

from prumerge.architectures.llava_phi import LlavaPhiConfig, LlavaPhiForConditionalGeneration
from prumerge.architectures.mobilevlm import MobileVLMConfig, MobileVLMForConditionalGeneration
from prumerge.architectures.moe_llava import MoELlavaConfig, MoELlavaForConditionalGeneration
from prumerge.architectures.tinygpt_v import TinyGPTVConfig, TinyGPTVForConditionalGeneration

__all__ = [
    "LlavaPhiConfig",
    "LlavaPhiForConditionalGeneration",
    "MoELlavaConfig",
    "MoELlavaForConditionalGeneration",
    "MobileVLMConfig",
    "MobileVLMForConditionalGeneration",
    "TinyGPTVConfig",
    "TinyGPTVForConditionalGeneration",
]

for _config, _model in (
    (LlavaPhiConfig, LlavaPhiForConditionalGeneration),
    (MobileVLMConfig, MobileVLMForConditionalGeneration),
    (MoELlavaConfig, MoELlavaForConditionalGeneration),
    (TinyGPTVConfig, TinyGPTVForConditionalGeneration),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForImageTextToText.register(_config, _model, exist_ok=True)
