"""A report to hand in: which checkpoint, which machine, what was measured; no picture and no answer."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import torch

from prumerge.evaluate.plan import fingerprint
from prumerge.evaluate.records import Record
from prumerge.evaluate.report import Row
from prumerge.models import device_of

FORM = 1
"""Of the report; a later version that changes it counts on."""
_TIMES = ("encode_ms", "reduce_ms", "prefill_ms", "decode_ms")
_PACKAGES = ("prumerge", "torch", "transformers")
_SIZES = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_TOWER = (*_SIZES[:4], "image_size", "patch_size")


def described(model: Any) -> dict[str, Any]:
    """Sizes of a checkpoint, the machine it is on, and versions."""
    config = model.config
    tower = getattr(config, "vision_config", None)
    device = device_of(model)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "weights": fingerprint(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "family": config.model_type,
        "language_model": _sizes(config.get_text_config(), _SIZES),
        "vision_tower": _sizes(tower, _TOWER),
        "machine": {"device": gpu or device.type, "processor": platform.machine()},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def report(look: dict[str, Any], rows: Sequence[Row], records: Sequence[Record]) -> dict[str, Any]:
    """What `described` and the self-check said, and a line for each method and budget."""
    kinds: dict[str, int] = {}
    for question in {record.place: record for record in records}.values():
        kinds[question.split] = kinds.get(question.split, 0) + 1
    return {
        "form": FORM,
        "date": date.today().isoformat(),
        **look,
        "pictures": len({record.cluster for record in records}),
        "questions": kinds,
        "methods": [_line(row) for row in rows if row.faithful],
    }


def _line(row: Row) -> dict[str, Any]:
    assert row.faithful is not None
    times = {
        name: round(getattr(row, name), 3) for name in ("encode_ms", "reduce_ms", "prefill_ms", "decode_ms")
    }
    return {"method": row.method, "spec": row.spec, "tokens": row.tokens, **asdict(row.faithful), **times}


def _sizes(config: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if isinstance(value := getattr(config, name, None), int | str)}
