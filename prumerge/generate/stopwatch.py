"""Wall-clock time of the stages of an answer."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer


class Stopwatch(BaseStreamer):
    """Milliseconds between laps, the device's work included; as a streamer, until each token."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: list[float] = []
        self.since = time.perf_counter()

    def lap(self) -> float:
        passed = self._passed()
        self.since = time.perf_counter()
        return passed

    def put(self, value: Tensor) -> None:
        """Transformers hands over the prompt first, then each token as it comes."""
        self.laps.append(self._passed())

    def end(self) -> None:
        self.laps.append(self._passed())

    def _passed(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - self.since) * 1000
