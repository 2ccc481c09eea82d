"""Timing as every benchmark here does it: alternatives take turns in one process, and medians count."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RESULTS = Path(__file__).parent / "results"


def rounds(
    alternatives: dict[str, Callable[[], Any]],
    count: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of each alternative over `count` rounds in which all take turns."""
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    for call in alternatives.values():
        call()
    for _ in range(count):
        for name, call in alternatives.items():
            synchronise()
            start = clock()
            call()
            synchronise()
            times[name].append((clock() - start) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def save(name: str, result: dict[str, Any]) -> None:
    """Write `results/NAME.json` with the machine, versions and date, and print it."""
    result = {
        **result,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{
                package: importlib.metadata.version(package)
                for package in ("torch", "transformers", "prumerge")
            },
        },
        "date": date.today().isoformat(),
    }
    text = json.dumps(result, indent=2) + "\n"
    suffix = "" if DEVICE == "cpu" else "-gpu"
    (RESULTS / f"{name}{suffix}.json").write_text(text)
    print(text)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
