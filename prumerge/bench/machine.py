"""The machine that is measured: its rates for the roofline, and what asking it for one operator takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from types import MappingProxyType

import torch

from prumerge.bench.timer import GpuClock, Lap, stages
from prumerge.roofline.calibrate import ROUNDS, calibrate, counted
from prumerge.roofline.hardware import Machine

_ASKED = 200  # operators in a row, to see what one takes


def measured(device: torch.device, dtype: torch.dtype, *, strict: bool = True) -> Machine:
    """Rates of a device: of the CPU by `calibrate`, of a GPU in this dtype by products and copies as large.

    Raises PrumergeError on a machine that is busy, or whose rounds scatter; if it is not `strict`, the median
    round counts instead.
    """
    if device.type != "cuda":
        return calibrate(strict=strict)
    side, copied = 8192, 1 << 30
    left, right = torch.randn(2, side, side, device=device, dtype=dtype)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    product = _gpu_seconds(device, lambda: left @ right)
    copy = _gpu_seconds(device, source.clone)
    rate = 2 * side**3 / counted(product, "products of matrices", strict=strict)
    bandwidth = 2 * copied / counted(copy, "copies of memory", strict=strict)
    arithmetic = "fp32" if dtype == torch.float32 else "fp16"
    note = (
        f"measured now on {torch.cuda.get_device_name(device)}: {rate / 1e12:.0f} TFLOP/s ({arithmetic}, "
        f"{side} x {side}), {bandwidth / 1e9:.0f} GB/s (copies of {copied / 2**20:.0f} MiB)"
    )
    return Machine("here", "this machine", MappingProxyType({arithmetic: rate}), bandwidth, note=note)


def launch_ms(device: torch.device) -> float:
    """Milliseconds that the CPU is busy with one small operator on a device: median of several rows."""
    one = torch.zeros(1, device=device)
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        for _ in range(_ASKED):
            one.add(1)
        times.append(1000 * (time.perf_counter() - start) / _ASKED)
    return median(times[1:])


def _gpu_seconds(device: torch.device, run: Callable[[], object]) -> list[float]:
    """Of rounds after a first that is not counted, by events."""

    def once(lap: Lap) -> None:
        run()
        lap("all")

    return [stages(once, GpuClock(device))["all"] / 1000 for _ in range(ROUNDS + 1)][1:]
