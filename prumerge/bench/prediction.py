"""What the roofline says of a case: the stages of the measurement, in its operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from prumerge.bench.case import Case, Read
from prumerge.roofline import configs
from prumerge.roofline.cost import Op, Setting, scoring
from prumerge.roofline.estimate import Stage, estimate, workload
from prumerge.roofline.hardware import Machine
from prumerge.roofline.precision import parse


@dataclass(frozen=True)
class Prediction:
    """The best case on a machine."""

    stages: dict[str, Stage]
    """By the names of the measurement, those that the roofline knows; of `decode` one token."""
    memory: float
    """Bytes at the peak."""


def predict(case: Case, read: Read, machine: Machine) -> Prediction:
    """Raises PrumergeError for a family whose sizes cannot be read."""
    model, placed = case.model, case.pipeline.placed
    sizes = configs.read(model.config.to_dict(), model.config.model_type)
    wide = model.dtype == torch.float32
    eager = getattr(model.config, "_attn_implementation", None) == "eager"
    setting = Setting(
        parse("w32a32" if wide else "w16a16"), case.batch, attention="eager" if eager else "fused"
    )
    tiles = max(1, round(read.encoded / sizes.visual_tokens)) if sizes.visual_tokens else None
    encoded = sizes.visual_tokens * (tiles or 1) if sizes.visual_tokens else read.encoded
    visual = tuple(min(count, encoded) for count in read.visual)  # separators are tokens of text
    text = read.text + read.visual[0] - visual[0]
    found = estimate(sizes, workload(sizes, visual, encoded, text, case.new_tokens, tiles), machine, setting)
    ops = {op.name: op for op in found.reduction.ops if placed.before is not None}
    # Where the projector joins patches, encoding ends behind it.
    joined, alone = ((), found.connector.ops) if sizes.projector.group == 1 else (found.connector.ops, ())
    stages = {
        "encode": (*found.tower.ops, *_keys(sizes, encoded, tiles or 1, setting), *joined),
        "decide": _those(ops, "similarity"),
        "project": (*_those(ops, "merge"), *alone),
        "prefill": found.prefill.ops,
        "decode": found.decode.ops,
    }
    if placed.tower is not None:  # its layers see fewer and fewer tokens, which the roofline does not know
        del stages["encode"]
    known = {name: Stage(name, each, machine) for name, each in stages.items() if each}
    return Prediction(known, found.resident)


def _those(ops: Mapping[str, Op], name: str) -> tuple[Op, ...]:
    return (ops[name],) if name in ops else ()


def _keys(sizes: configs.Model, encoded: int, tiles: int, setting: Setting) -> list[Op]:
    """Keys of the layer that reads the features, where it is otherwise left out; whatever the method."""
    tower = sizes.tower
    if tower.read_layers == tower.layers:
        return []
    return scoring(tower, encoded * sizes.projector.group // tiles, tiles, setting)


def check_known(model: Any) -> None:
    """Raise PrumergeError for a family whose sizes the roofline cannot read."""
    configs.read(model.config.to_dict(), model.config.model_type)
