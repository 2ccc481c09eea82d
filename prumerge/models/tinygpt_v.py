"""TinyGPT-V: BLIP-2's tower and Q-Former, two linear layers and Phi-2; the 32 tokens are what is reduced."""

from prumerge.models.blip_2 import ENCODER_INPUTS, deliver, encode, project

__all__ = ["ENCODER_INPUTS", "deliver", "encode", "project"]

TAKES = "pictures"
ATTENTION = "mean over the Q-Former's queries"
REDUCED = "behind the Q-Former"
