"""Model classes that Transformers has not, made known to `AutoConfig` and `AutoModelForImageTextToText`.

So they are saved and loaded like any other. Each is in its family's file.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText

from prumerge.models.llava_phi import LlavaPhiConfig, LlavaPhiForConditionalGeneration
from prumerge.models.mobilevlm import MobileVLMConfig, MobileVLMForConditionalGeneration
from prumerge.models.moe_llava import MoELlavaConfig, MoELlavaForConditionalGeneration
from prumerge.models.tinygpt_v import TinyGPTVConfig, TinyGPTVForConditionalGeneration

__all__ = [
    "LlavaPhiForConditionalGeneration",
    "MoELlavaForConditionalGeneration",
    "MobileVLMForConditionalGeneration",
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
