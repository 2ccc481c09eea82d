"""Which operators a run asks the device for, what they compute, and how long each takes by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from prumerge.bench.timer import Clock, Lap

_ASKED = 100  # operators in a row, to see what watching one takes
_ATTENTION_OF_CPU = "aten._scaled_dot_product_flash_attention_for_cpu"  # which torch's registry lacks


@dataclass(frozen=True)
class Traced:
    """One stage: operators that do some work (views do none), one after the other."""

    operators: int
    products: int
    """Of those the ones that multiply matrices, attention and convolutions included."""
    flops: int
    """Of the products, as torch's FlopCounterMode counts them."""
    products_ms: float
    """Their time, without what an operator takes that computes nothing."""
    others_ms: float


@dataclass
class _Stage:
    marks: list[tuple[Any, Any]]
    flops: list[int]


class _Watch(TorchDispatchMode):
    """Marks around every operator while a `with` lasts."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.now = _Stage([], [])
        self.stages: dict[str, list[_Stage]] = defaultdict(list)

    def lap(self, name: str) -> None:
        self.stages[name].append(self.now)
        self.now = _Stage([], [])

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if function.is_view:
            return function(*args, **named)
        start = self.clock.mark()
        out = function(*args, **named)
        self.now.marks.append((start, self.clock.mark()))
        self.now.flops.append(_flops(function._overloadpacket, args, named, out))
        return out


def trace(run: Callable[[Lap], Any], clock: Clock, device: torch.device) -> dict[str, Traced]:
    """Each stage of a run, the quicker of two; gradients must be off in it, and inference mode as well, which
    hides the operators that others are made of."""
    with _Watch(clock) as idle:
        one = torch.zeros(1, device=device)
        for _ in range(_ASKED):
            one.add(1)
        idle.lap("idle")
    empty = median(_milliseconds(idle.stages["idle"], clock))
    first, second = (_once(run, clock, empty) for _ in range(2))
    return {
        name: replace(
            one,
            products_ms=min(one.products_ms, second[name].products_ms),
            others_ms=min(one.others_ms, second[name].others_ms),
        )
        for name, one in first.items()
    }


def _once(run: Callable[[Lap], Any], clock: Clock, empty: float) -> dict[str, Traced]:
    with _Watch(clock) as watched:
        run(watched.lap)
    return {name: _summed(each, clock, empty) for name, each in watched.stages.items()}


def _summed(parts: list[_Stage], clock: Clock, empty: float) -> Traced:
    times = [max(0.0, one - empty) for one in _milliseconds(parts, clock)]
    flops = [one for part in parts for one in part.flops]
    products = [time for time, count in zip(times, flops, strict=True) if count]
    return Traced(len(times), len(products), sum(flops), sum(products), sum(times) - sum(products))


def _milliseconds(parts: list[_Stage], clock: Clock) -> list[float]:
    return [clock.passed(pair)[0] for part in parts for pair in part.marks]


def _flops(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    if str(packet) == _ATTENTION_OF_CPU:
        query, key, value = (tensor.shape for tensor in args[:3])
        return sdpa_flop_count(query, key, value)
    return int(flop_registry[packet](*args, **kwargs, out_val=out)) if packet in flop_registry else 0
