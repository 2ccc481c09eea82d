"""Qwen2.5-VL: pictures at their own size and videos, with rotary positions in time and space."""

from prumerge.models._delivery import as_they_are
from prumerge.models._family import Family
from prumerge.models._qwen import INPUTS, encode, positions

FAMILY = Family(
    takes="pictures, videos",
    attention="mean over the patches of a frame",
    reduced="behind the merger",
    inputs=INPUTS,
    encode=encode,
    project=as_they_are,
    projector=("visual.merger",),
    positions=positions,
)
