"""One Hugging Face model family = one file named after its `config.model_type`.

A family's file holds what differs between families, as plain functions on the family's base model:

- `ENCODER_INPUTS`: the processor's outputs that the vision side takes, `pixel_values` first.
- `encode(base, inputs, merging=None) -> list[VisualTokens]`: one for each picture, in prompt order, merged on
  the way by `merging` (see `vision.encode`).
- `project(base, features) -> list[Tensor]`: reduced features [M_i, C] to language-model embeddings [M_i, H].
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn
from transformers import PreTrainedModel

from prumerge.tokens import VisualTokens
from prumerge.vision import Merging


@runtime_checkable
class Family(Protocol):
    """What a family's file provides."""

    ENCODER_INPUTS: tuple[str, ...]

    def encode(
        self, base: Any, inputs: Mapping[str, Any], merging: Merging | None = None
    ) -> list[VisualTokens]: ...
    def project(self, base: Any, features: list[Tensor]) -> list[Tensor]: ...


@cache
def families() -> tuple[str, ...]:
    """The model types that are supported."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py")))


def family_of(model_type: str) -> Family:
    """The adapter of a family; ValueError, naming the supported ones, if there is none."""
    if model_type not in families():
        raise ValueError(
            f"models of type {model_type!r} are not supported yet; supported: {', '.join(families())} "
            "(a new family is one file with encode() and project(), see CONTRIBUTING.md)"
        )
    return cast(Family, import_module(f"prumerge.models.{model_type}"))


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The Transformers model inside wrappers such as PEFT's; TypeError or ValueError if it cannot see
    pictures."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"a Transformers model is needed, not {type(model).__name__}; prumerge.load() returns one"
        )
    inner = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    if inner is None:
        raise TypeError(f"{type(model).__name__} is no Transformers model; load one with prumerge.load()")
    check_sees(inner.config)
    return inner


def check_sees(config: Any) -> None:
    """Raise ValueError if a configuration is not one of a vision-language model of a supported family."""
    if getattr(config, "vision_config", None) is None:
        raise ValueError(
            f"{config.model_type!r} is not a vision-language model: it has no visual tokens to reduce; "
            "try 'tiny' or 'llava-hf/llava-1.5-7b-hf'"
        )
    family_of(config.model_type)
