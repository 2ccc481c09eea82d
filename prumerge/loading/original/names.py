"""What the weights of published checkpoints are called in Transformers."""

from __future__ import annotations

import re

_NAMES = (
    # projectors: LLaVA's, MobileVLM's second and first
    (
        r"^(model\.mm_projector(\.image_spatial_proj)?|connector\._connector)\.",
        "model.multi_modal_projector.",
    ),
    (r"_projector\.(0|mlp\.mlp\.0|model\.mlp\.1)\.", "_projector.linear_1."),
    (r"_projector\.(2|mlp\.mlp\.2|model\.mlp\.3)\.", "_projector.linear_2."),
    (r"_projector\.peg\.peg\.0\.", "_projector.position."),
    (r"_projector\.model\.mb_block\.1\.block\.", "_projector.blocks.0."),
    (r"_projector\.model\.mb_block\.2\.block\.", "_projector.blocks.1."),
    (r"(_projector\.blocks\.\d)\.0\.0\.", r"\1.depthwise."),
    (r"(_projector\.blocks\.\d)\.0\.1\.", r"\1.depthwise_norm."),
    (r"(_projector\.blocks\.\d)\.1\.fc1\.", r"\1.squeeze."),
    (r"(_projector\.blocks\.\d)\.1\.fc2\.", r"\1.excite."),
    (r"(_projector\.blocks\.\d)\.2\.0\.", r"\1.pointwise."),
    (r"(_projector\.blocks\.\d)\.2\.1\.", r"\1.pointwise_norm."),
    # towers
    (r"^(model\.)?(vision|image)_tower\._?(vision|image)_tower\.(vision_model\.)?", "model.vision_tower."),
    # language models, their experts in DeepSpeed's layout
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^model\.(?!vision_tower|multi_modal_projector|language_model)", "model.language_model."),
    (r"\.mlp\.deepspeed_moe\.gate\.wg\.", ".mlp.gate."),
    (r"\.mlp\.deepspeed_moe\.experts\.deepspeed_experts\.", ".mlp.experts."),
)


def renamed(name: str) -> str:
    """One weight's name in Transformers."""
    for pattern, new in _NAMES:
        name = re.sub(pattern, new, name)
    return name
