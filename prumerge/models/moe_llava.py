"""MoE-LLaVA: LLaVA whose language model has several MLPs in some of its layers, and gates."""

from prumerge.models.llava import ENCODER_INPUTS, encode, project

__all__ = ["ENCODER_INPUTS", "encode", "project"]

TAKES = "pictures"
ATTENTION = "class token, or with SigLIP the mean over patches"
REDUCED = "before the projector"
