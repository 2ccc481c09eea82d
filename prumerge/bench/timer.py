"""Alternatives take turns in one process, and the medians of their rounds count.

On the CPU a clock on the wall is read; on a GPU events are recorded between kernels, so that nobody waits for
the device in the middle of what is timed.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch

Lap: TypeAlias = Callable[[str], None]
"""Told the name of a stage when it ends; a stage that ends several times is summed."""
Key = TypeVar("Key", bound=Hashable)


@runtime_checkable
class Clock(Protocol):
    """Marks in time, and what passed between them."""

    def mark(self) -> Any: ...

    def passed(self, marks: Sequence[Any]) -> list[float]:
        """Milliseconds between each mark and the next."""


@dataclass(frozen=True)
class CpuClock:
    """Seconds of any function, by default of a clock on the wall."""

    read: Callable[[], float] = time.perf_counter

    def mark(self) -> float:
        return self.read()

    def passed(self, marks: Sequence[float]) -> list[float]:
        return [1000 * (end - start) for start, end in pairwise(marks)]


@dataclass(frozen=True)
class GpuClock:
    """Events between the kernels of a GPU's current stream."""

    device: torch.device

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def passed(self, marks: Sequence[Any]) -> list[float]:
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) for start, end in pairwise(marks)]


def clock_of(device: torch.device | str) -> Clock:
    """The clock of a device."""
    device = torch.device(device)
    return GpuClock(device) if device.type == "cuda" else CpuClock()


def stages(run: Callable[[Lap], Any], clock: Clock) -> dict[str, float]:
    """Milliseconds of each stage of one run; what follows its last lap is not counted."""
    names: list[str] = []
    marks = [clock.mark()]

    def lap(name: str) -> None:
        marks.append(clock.mark())
        names.append(name)

    run(lap)
    spent: dict[str, float] = defaultdict(float)
    for name, milliseconds in zip(names, clock.passed(marks), strict=True):
        spent[name] += milliseconds
    return dict(spent)


def rounds(
    alternatives: Mapping[Key, Callable[[Lap], Any]],
    count: int,
    clock: Clock,
    done: Callable[[], None] = lambda: None,
) -> dict[Key, list[dict[str, float]]]:
    """Milliseconds of the stages of each alternative, in `count` rounds in which all take turns.

    A first round is not counted. `done` is told of every run, that of the first round included.
    """
    found: dict[Key, list[dict[str, float]]] = {name: [] for name in alternatives}
    for number in range(count + 1):
        for name, run in alternatives.items():
            spent = stages(run, clock)
            if number:
                found[name].append(spent)
            done()
    return found


@dataclass(frozen=True)
class Spread:
    """The middle of several measurements of the same thing, and the middle half of them."""

    median: float
    q25: float
    q75: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        q25, median, q75 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q25, q75)
