"""From a name to a model and its processor."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig
from transformers.utils import logging

from prumerge.errors import PrumergeError
from prumerge.loading.original import is_published, open_folder
from prumerge.loading.paths import first_line
from prumerge.loading.processors import processor_of
from prumerge.loading.sources import Source, find
from prumerge.loading.weights import check_weights, reading
from prumerge.models import check_sees
from prumerge.tiny import NAMES as TINY
from prumerge.tiny import weights


def load(name: str | os.PathLike[str] = "tiny", **options: Any) -> tuple[Any, Any]:
    """A vision-language model and its processor, ready to generate.

    `name` is `"tiny"` (the embedded model: nothing to download), a Hugging Face id such as
    `"llava-hf/llava-1.5-7b-hf"`, or a checkpoint folder; in a clone of the repository also `"tiny:full"`, the
    embedded model as a reader that only ever saw all visual tokens, `"tiny:hard"`, the one that went on with
    hard scenes and clips, and `"real"`, a LLaVA of a real tower and a real language model, whose parts two
    packages ship (`prumerge.loading.real`). `options` go to `from_pretrained` (dtype,
    device_map, quantization_config, ...); those that say where files are (revision, subfolder, cache_dir,
    token, local_files_only) reach configuration, processor and weights alike. Without a dtype it is the
    checkpoint's own.

    Of a checkpoint that `prumerge train` wrote, `model.adapted_to` says which method and budgets it was
    adapted to, such as "prumerge at 16-144 visual tokens"; of others it is None.

    Checkpoints in the layout of the original LLaVA code or of TinyLLaVA Factory are read as well (see
    `prumerge.loading.original`).

    Raises PrumergeError if there is no such model, it cannot see pictures, its family is not supported, or
    its files are damaged, lack weights or do not fit together.
    """
    if "torch_dtype" in options:  # dtype's older name
        options.setdefault("dtype", options.pop("torch_dtype"))
    _check_device_map(options.get("device_map"))
    is_own = name in (*TINY, "real")
    if is_own:
        with _quiet(bars=False):
            name, options = _own(str(name)), {"dtype": torch.float32, **options}
    source = find(name, options)
    with _quiet(bars=not is_own):
        model, processor = (_original if is_published(source.settings) else _checkpoint)(source, options)
    processor.tokenizer.padding_side = "left"
    model.adapted_to = _adapted_to(source.name)
    return model.eval(), processor


def _own(name: str) -> Path:
    """The folder of a model that this project trained."""
    if name == "real":
        from prumerge.loading.real import checkpoint

        return checkpoint()

    return weights(name)


def _adapted_to(name: str) -> str | None:
    """The method and the budgets that a checkpoint was trained with, as `prumerge train` wrote them."""
    try:
        about = json.loads(Path(name, "prumerge.json").read_text(encoding="utf-8"))
        return f"{about['reducer']} at {about['budgets']} visual tokens"
    except (OSError, ValueError, TypeError, KeyError):  # it was not, or by something else
        return None


def _original(source: Source, options: dict[str, Any]) -> tuple[Any, Any]:
    small = ("*.json", "*.txt", "*.model")
    folder = source.folder(*small, "*.safetensors")
    if not any(folder.glob("*.safetensors")):
        folder = source.folder(*small, "pytorch_model*.bin")
    return open_folder(folder, **options)


def _checkpoint(source: Source, options: dict[str, Any]) -> tuple[Any, Any]:
    try:
        config = AutoConfig.from_pretrained(source.name, **source.options)
    except Exception as error:  # whatever a class raises whose settings have wrong types
        raise PrumergeError(
            f"there is no model to load at {source.name!r}: its config.json describes none that Transformers "
            f"knows ({first_line(error)})"
        ) from error
    check_sees(config)
    if not isinstance(config.vision_config, PreTrainedConfig):
        raise PrumergeError(f"the config.json of {source.name!r} describes no vision tower")
    with reading(source.name):
        processor = processor_of(source.name, config, **source.options)
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise PrumergeError(
            f"the checkpoint {source.name!r} is not complete: it has no processor of pictures "
            "(preprocessor_config.json or processor_config.json)"
        )
    asked = {"dtype": "auto", "config": config, **source.options, **options}
    told_all = {"ignore_mismatched_sizes": True, "output_loading_info": True}
    with reading(source.name):
        model, told = AutoModelForImageTextToText.from_pretrained(source.name, **{**asked, **told_all})
    check_weights(source.name, told)
    return model, processor


def _check_device_map(device_map: Any) -> None:
    """Raise PrumergeError for weights on `meta`, which has no numbers."""
    places = device_map.values() if isinstance(device_map, dict) else [device_map]
    if "meta" in map(str, places):
        raise PrumergeError("there is no device 'meta' to run on: it holds shapes only, no numbers")


@contextmanager
def _quiet(bars: bool = True) -> Iterator[None]:
    """Transformers says errors only (that torchvision is not there is no news), and with or without bars."""
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
