"""What a measurement was made on and with: the machine, versions, the date."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

_CPUS = Path("/proc/cpuinfo")


def record() -> dict[str, Any]:
    """The machine, versions and date, for a file of results."""
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "prumerge")},
        },
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    for line in _CPUS.read_text().splitlines() if _CPUS.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
