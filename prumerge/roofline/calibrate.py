"""This machine's rates, measured: products of fp32 matrices, and copies of more memory than caches hold."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from types import MappingProxyType

from prumerge.errors import PrumergeError
from prumerge.roofline.hardware import Machine

ROUNDS = 7
BUSY = 0.25
"""Load average per core above which a measurement is refused."""
SPREAD = 1.3
"""Median over best time above which rounds are not taken for repeats of the same thing."""


def calibrate(side: int = 2048, copied: int = 1 << 28, *, strict: bool = True) -> Machine:
    """Measure with matrices of `side` x `side` and copies of `copied` bytes; the best of a few rounds counts.

    A product of n x n matrices is 2 n^3 FLOPs; a copy moves its bytes twice, as STREAM counts: read, written.
    Raises PrumergeError on a machine that is busy, or whose rounds scatter; if it is not `strict`, the median
    round counts instead.
    """
    cores = usable_cores()
    if strict:
        check_idle()
    rate = 2 * side**3 / counted(_seconds(_product(side)), "products of matrices", strict=strict)
    bandwidth = 2 * copied / counted(_seconds(_copy(copied, cores)), "copies of memory", strict=strict)
    note = (
        f"measured now on {cores} cores: {rate / 1e9:.0f} GFLOP/s (fp32, {side} x {side}), "
        f"{bandwidth / 1e9:.1f} GB/s (copies of {copied / 2**20:.0f} MiB)"
    )
    return Machine("here", "this machine", MappingProxyType({"fp32": rate}), bandwidth, note=note)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if "sched_getaffinity" in dir(os) else os.cpu_count() or 1


def load() -> float:
    """How many processes wanted to run in the last minute, on average; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return 0.0


def check_idle() -> None:
    """Raise PrumergeError while others keep this machine busy."""
    cores = usable_cores()
    if (now := load()) > BUSY * cores:
        raise PrumergeError(
            f"this machine is busy (load {now:.1f} on {cores} cores), so that its figures would be too low; "
            f"try again when the load of the last minute is below {BUSY * cores:.2g}"
        )


def _product(side: int) -> Callable[[], object]:
    import numpy as np

    left, right = np.random.default_rng(0).random((2, side, side), dtype=np.float32)
    out = np.empty_like(left)
    return lambda: np.matmul(left, right, out=out)


def _copy(size: int, cores: int) -> Callable[[], object]:
    """One thread does not use all of the bandwidth: each core copies its part."""
    import numpy as np

    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    pool = ThreadPoolExecutor(cores)
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


def _seconds(run: Callable[[], object]) -> list[float]:
    """Of rounds after a first that is not counted."""
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def counted(times: list[float], what: str, *, strict: bool = True) -> float:
    """Seconds of the fastest round; where it is not `strict`, of the median one, which is what others that
    use the machine leave. Raises PrumergeError where rounds scatter, if it is strict."""
    if not strict:
        return median(times)
    if median(times) > SPREAD * min(times):
        raise PrumergeError(
            f"{what} scatter (best {min(times) * 1e3:.1f} ms, median {median(times) * 1e3:.1f} ms): "
            "something else uses this machine; try again when it is quiet"
        )
    return min(times)
