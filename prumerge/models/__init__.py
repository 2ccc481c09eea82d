"""One Hugging Face model family = one file named after its `config.model_type`.

A family's file holds what differs between families, as plain functions on the family's base model, and ends
in `FAMILY = Family(...)`, which names them (`Family` says what each takes and gives). The words of `takes`,
`attention` and `reduced` are plain strings, since `prumerge families` reads them without importing the file.

Files that begin with an underscore hold what families share.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedModel

from prumerge.catalogue import families
from prumerge.errors import PrumergeError
from prumerge.models._family import Family
from prumerge.models._weights import device_of, within_call

__all__ = [
    "Family",
    "answers_apart",
    "check_sees",
    "check_version",
    "device_of",
    "families",
    "family_of",
    "unwrap",
    "within_call",
]


@cache
def family_of(model_type: str) -> Family:
    """The adapter of a family.

    Raises PrumergeError, naming the supported ones, if there is none, and if it needs a newer Transformers.
    """
    name = model_type.replace("-", "_")
    if name not in families():
        raise PrumergeError(
            f"models of type {model_type!r} are not supported yet; supported: {', '.join(families())} "
            "(a new family is one file with two functions, encode() and project(); see CONTRIBUTING.md)"
        )
    family: Family = import_module(f"prumerge.models.{name}").FAMILY
    check_version(name, family.since, transformers.__version__)
    return family


def check_version(name: str, since: str, installed: str) -> None:
    """Raises PrumergeError if the installed Transformers is older than a family needs."""

    def numbers(version: str) -> list[int]:
        return [int(number) for number in version.split(".")[:2]]

    if numbers(installed) < numbers(since):
        raise PrumergeError(
            f"models of type {name!r} need Transformers {since} or newer, and this is {installed}; "
            f"install it with: pip install 'transformers>={since}' (on Python 3.11 or newer)"
        )


def answers_apart(config: Any) -> bool:
    """Whether the language model is an encoder-decoder (T5), whose answer does not begin with the prompt."""
    return bool(config.text_config.is_encoder_decoder)


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
