"""The most memory that was held at once: of a GPU what torch allocated, else what the process had in RAM."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peaks of one device, in bytes. Linux forgets a process's peak when asked to; elsewhere that of its
    whole life is all there is."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> None:
        """Forget earlier peaks."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            _CLEAR.write_text("5")
        except OSError:  # another system, or one that does not allow it
            return

    def read(self) -> int | None:
        """The peak since; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if (peak := _of_process("VmHWM")) is not None:
            return peak
        try:
            import resource
        except ImportError:  # Windows
            return None
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def held(self) -> int:
        """What is held now; 0 where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _of_process("VmRSS") or 0


def _of_process(name: str) -> int | None:
    """A line of the process's status, which counts in KiB."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
