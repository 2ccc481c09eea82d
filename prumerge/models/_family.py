"""What a model family is to the rest of the package: a few facts and a few functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prumerge.models._delivery import as_list
from prumerge.tokens import VisualTokens


@dataclass(frozen=True)
class Family:
    """One model family. Functions take `base`, the model without its language-model head."""

    takes: str
    """What it is shown: "pictures" or "pictures, videos"."""
    attention: str
    """Whose attention scores its tokens."""
    reduced: str
    """Where its tokens are reduced."""
    inputs: tuple[str, ...]
    """The processor's outputs that the vision side takes, `pixel_values` first; with `pixel_values_videos`
    the family takes videos."""
    encode: Callable[..., list[VisualTokens]]
    """`encode(base, inputs)`: the visual tokens of each picture, in prompt order. Where the family `merges`
    it takes `merging` as well."""
    project: Callable[[Any, list[Tensor]], list[Tensor]]
    """`project(base, features)`: each picture's features [M_i, C], reduced or not, to embeddings [M_i, H]."""
    since: str = "5.20"
    """The first Transformers whose classes of this family are read as they are here."""
    projector: tuple[str, ...] = ("multi_modal_projector",)
    """What stands between tower and language model, by the names of its modules in `base`: what training
    calls the projector."""
    deliver: Callable[[Any, dict[str, Any], list[Tensor], str], None] = as_list
    """`deliver(base, prompt, features, modality)`: puts projected features into the prompt."""
    positions: Callable[[Any, Mapping[str, Any]], Tensor] | None = None
    """`positions(base, inputs)`: position ids [R, B, L] of the whole prompt, where they have several rows
    (rotary positions in time and space)."""
    merges: bool = False
    """Whether a method may merge patches inside the vision tower."""
    reads_text: bool = False
    """Whether the visual tokens depend on the question."""
    hands_embeddings: bool = False
    """Whether `generate` takes no encoded pictures, so that `deliver` hands embeddings over."""
