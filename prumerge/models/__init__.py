"""One Hugging Face model family = one file named after its `config.model_type`.

A family's file holds what differs between families, as plain functions on the family's base model:

- `ENCODER_INPUTS`: the processor's outputs that the vision side takes, `pixel_values` first; with
  `pixel_values_videos` the family takes videos.
- `TAKES`, `ATTENTION`, `REDUCED`: what it is shown, whose attention scores its tokens, and where they are
  reduced, as `prumerge families` says it; plain strings, since they are read without importing the file.
- `encode(base, inputs) -> list[VisualTokens]`: one for each picture, in prompt order. With a third parameter
  `merging=None` the family lets a method merge patches inside its vision tower (see `vision.encode`).
- `project(base, features) -> list[Tensor]`: reduced features [M_i, C] to language-model embeddings [M_i, H].

And where a family needs them:

- `deliver(base, prompt, features, modality)`: puts projected features into the prompt, for models that do not
  take them as a list.
- `positions(base, inputs) -> Tensor [R, B, L]`: of the whole prompt, for models with rotary positions in time
  and space.

Files that begin with an underscore hold what families share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prumerge.errors import PrumergeError
from prumerge.models._vision import Merging
from prumerge.supported import families
from prumerge.tokens import VisualTokens

__all__ = ["Family", "as_list", "check_sees", "encoder_of", "families", "family_of", "optional", "unwrap"]


@runtime_checkable
class Family(Protocol):
    """What a family's file provides."""

    TAKES: str
    ATTENTION: str
    REDUCED: str
    ENCODER_INPUTS: tuple[str, ...]

    encode: Callable[..., list[VisualTokens]]

    def project(self, base: Any, features: list[Tensor]) -> list[Tensor]: ...


def family_of(model_type: str) -> Family:
    """The adapter of a family; ValueError, naming the supported ones, if there is none."""
    name = model_type.replace("-", "_")
    if name not in families():
        raise PrumergeError(
            f"models of type {model_type!r} are not supported yet; supported: {', '.join(families())} "
            "(a new family is one file with two functions, encode() and project(); see CONTRIBUTING.md)"
        )
    return cast(Family, import_module(f"prumerge.models.{name}"))


def optional(family: Family, name: str) -> Callable[..., Any] | None:
    """A function that only some families provide."""
    return getattr(family, name, None)


def encoder_of(model_type: str, merging: Merging | None = None) -> Callable[..., list[VisualTokens]]:
    """A family's `encode(base, inputs)`, with what a method merges inside its vision tower.

    ValueError where its tower lets none.
    """
    encode = family_of(model_type).encode
    if merging is None:
        return encode
    if "merging" not in signature(encode).parameters:
        raise PrumergeError(
            f"{merging} merges inside the vision tower, which is not supported for models of type "
            f"{model_type!r} yet; use a method before the language model"
        )
    return partial(encode, merging=merging)


def as_list(base: Any, prompt: dict[str, Any], features: list[Tensor], modality: str) -> None:
    """`deliver` for most: one tensor for each picture."""
    prompt["mm_encoder_outputs"] = {modality: BaseModelOutputWithPooling(pooler_output=features)}


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
        raise PrumergeError(
            f"{config.model_type!r} is not a vision-language model: it has no visual tokens to reduce; "
            "try 'tiny' or 'llava-hf/llava-1.5-7b-hf'"
        )
    family_of(config.model_type)
