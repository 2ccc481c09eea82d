"""Qwen2-VL: pictures at their own size and videos, with rotary positions in time and space."""

from prumerge.models._qwen import ENCODER_INPUTS, deliver, encode, positions
from prumerge.models._shared import as_they_are as project

__all__ = ["ENCODER_INPUTS", "deliver", "encode", "positions", "project"]

TAKES = "pictures, videos"
ATTENTION = "mean over the patches of a frame"
REDUCED = "behind the merger"
