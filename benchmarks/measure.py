"""Timing as every benchmark here does it: the timer of `prumerge bench`, and results with where they come
from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prumerge.bench import timer
from prumerge.bench.record import record
from prumerge.errors import MissingPackage

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RESULTS = Path(__file__).parent / "results"
_STARTED = time.monotonic()


def rounds(
    alternatives: dict[str, Callable[[], Any]],
    count: int,
    read: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of each alternative over `count` rounds in which all take turns; on a GPU by
    events, on a CPU by the clock that is `read`."""
    clock = timer.clock_of(DEVICE) if DEVICE == "cuda" else timer.CpuClock(read)
    runs = {name: partial(_once, call) for name, call in alternatives.items()}
    found = timer.rounds(runs, count, clock)
    return {name: timer.Spread.of([one["all"] for one in each]).median for name, each in found.items()}


def _once(call: Callable[[], Any], lap: timer.Lap) -> None:
    call()
    lap("all")


def part_of(name: str, part: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, or the committed part of `results/NAME.json` where a package for it is missing."""
    try:
        return make()
    except MissingPackage as error:
        print(f"{part} stays as it was: {error}")
        return json.loads((RESULTS / f"{name}.json").read_text())[part]


def save(name: str, result: dict[str, Any]) -> None:
    """Write `results/NAME.json` with how long this process took, the machine, versions and date; print it."""
    seconds = round(time.monotonic() - _STARTED)
    text = json.dumps({**result, "seconds": seconds, **record()}, indent=2) + "\n"
    suffix = "" if DEVICE == "cpu" else "-gpu"
    (RESULTS / f"{name}{suffix}.json").write_text(text)
    print(text)
