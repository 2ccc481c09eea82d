"""SmolVLM: laid out as Idefics3; a video is its frames' pictures."""

from prumerge.models.idefics3 import ENCODER_INPUTS, encode, project

__all__ = ["ENCODER_INPUTS", "encode", "project"]

TAKES = "pictures"
ATTENTION = "mean over the patches"
REDUCED = "behind the connector"
