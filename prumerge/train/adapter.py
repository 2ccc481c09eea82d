"""What is trained of a model, and what is kept of it: an adapter, and a plain checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import logging

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.models import family_of, unwrap

TRAINED = ("lora", "projector", "full")


def check_trained(train: str) -> None:
    """Raise PrumergeError for a word that is none of what can be trained."""
    if train not in TRAINED:
        raise PrumergeError(f"what is trained is {', '.join(TRAINED)}, not {train!r}")


def prepare(
    model: nn.Module, train: str = "lora", *, rank: int = 128, alpha: int = 256, dropout: float = 0.05
) -> nn.Module:
    """The model with what is to be trained asking for gradients, and nothing else; the tower never does.

    `lora`: low-rank adapters on every linear layer of the language model but its head, and the projector
    whole. `projector`: the projector alone. `full`: the language model and the projector.
    Raises PrumergeError for a word that is none of these, for models with an encoder-decoder and for what is
    quantised (under LoRA the language model may be), and MissingPackage without peft.
    """
    check_trained(train)
    inner = unwrap(model)
    if inner.config.get_text_config().is_encoder_decoder:
        raise PrumergeError(
            f"models of type {inner.config.model_type!r} with an encoder-decoder are not trained here"
        )
    model.requires_grad_(False)
    projector = projector_names(inner)
    whole = [inner.get_submodule(name) for name in projector]
    _check_not_quantised([*whole, inner.get_decoder()] if train == "full" else whole)
    if train == "lora":
        return _with_lora(inner, projector, rank, alpha, dropout)
    for name in projector:
        inner.get_submodule(name).requires_grad_(True)
    if train == "full":
        inner.get_decoder().requires_grad_(True)
        inner.get_output_embeddings().requires_grad_(True)
    return model


def _check_not_quantised(parts: Sequence[nn.Module]) -> None:
    """Raise PrumergeError where weights that would be trained are whole numbers."""
    if any(not one.is_floating_point() for part in parts for one in part.parameters()):
        raise PrumergeError(
            "quantised weights cannot be trained: take LoRA, and quantise neither tower nor projector (with "
            "bitsandbytes name them in llm_int8_skip_modules by their full names, as in "
            "model.multi_modal_projector)"
        )


def projector_names(model: Any) -> tuple[str, ...]:
    """The modules between the vision tower and the language model, by their names in the model."""
    base, own = model.base_model, set()
    for name in family_of(model.config.model_type).projector:
        part = base.get_submodule(name)
        own |= {id(module) for module in (part if isinstance(part, nn.ModuleList) else [part])}
    return tuple(name for name, module in model.named_modules() if id(module) in own)


def linears(model: Any) -> list[str]:
    """The linear layers of the language model, by their names in the model; its head and the routers of its
    experts are none of them."""
    inside = {id(module) for module in model.get_decoder().modules()}
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and id(module) in inside
        and module is not head
        and name.rpartition(".")[2] not in ("gate", "router")
    ]


def count_trained(model: nn.Module) -> tuple[int, int]:
    """Parameters that are trained, and all."""
    every = list(model.parameters())
    return sum(one.numel() for one in every if one.requires_grad), sum(one.numel() for one in every)


def _with_lora(model: Any, projector: Sequence[str], rank: int, alpha: int, dropout: float) -> nn.Module:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingPackage("LoRA needs peft; install it with: pip install 'prumerge[train]'") from error
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=linears(model),
        modules_to_save=list(projector),
    )
    with warnings.catch_warnings():  # peft calls Transformers by names that are deprecated
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)


def save(model: Any, processor: Any, folder: Path, *, merge: bool = True) -> Any:
    """Write `folder/adapter` (of LoRA), and with `merge` the plain checkpoint `folder/model`, which
    `from_pretrained` and servers load as they did the one it came from. Gives the plain model."""
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
        if not merge:
            return model
        model = model.merge_and_unload()
    inner = unwrap(model)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of one file
    inner.save_pretrained(folder / "model")
    if bars:
        logging.enable_progress_bar()
    processor.save_pretrained(folder / "model")
    return inner
