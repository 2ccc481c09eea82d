"""LLaVA-Phi and TinyLLaVA with Phi: LLaVA whose language model's head has a bias."""

from prumerge.models.llava import ENCODER_INPUTS, encode, project

__all__ = ["ENCODER_INPUTS", "encode", "project"]

TAKES = "pictures"
ATTENTION = "class token, or with SigLIP the mean over patches"
REDUCED = "before the projector"
