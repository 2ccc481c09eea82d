"""Machines as data: peak rates of dense matrix products and bandwidths, with the source of the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from prumerge.errors import PrumergeError, unknown

_DATA = Path(__file__).parent / "machines.json"


@dataclass(frozen=True)
class Machine:
    """One device."""

    name: str
    title: str
    rates: Mapping[str, float]
    """FLOP/s of dense matrix products (never the figure with sparsity), for each arithmetic it has."""
    bandwidth: float
    """Bytes/s of its memory."""
    memory: float | None = None
    """Bytes."""
    link: float | None = None
    """Bytes/s to the other devices, in one direction."""
    source: str = ""
    note: str = ""

    def rate(self, arithmetic: str) -> float:
        """FLOP/s; where there are no 16-bit products, those of 32 bits do their work."""
        if arithmetic == "fp16" and "fp16" not in self.rates:
            arithmetic = "fp32"
        if arithmetic not in self.rates:
            raise PrumergeError(
                f"{self.name} has no {arithmetic} arithmetic, only {', '.join(self.rates)}; "
                "name another after a colon, such as w8a8:fp16, or keep activations at 16 bits: w4a16"
            )
        return self.rates[arithmetic]

    def ridge(self, arithmetic: str) -> float:
        """FLOP per byte above which arithmetic is the limit, and below which memory is."""
        return self.rate(arithmetic) / self.bandwidth


@cache
def names() -> tuple[str, ...]:
    return tuple(_read())


def machine(name: str) -> Machine:
    """A preset by its name."""
    known = _read()
    if (key := name.strip().lower()) not in known:
        raise PrumergeError(unknown("machine", name, list(known), instead="use --calibrate"))
    return known[key]


@cache
def _read() -> dict[str, Machine]:
    entries = json.loads(_DATA.read_text(encoding="utf-8"))
    return {
        name: Machine(
            name,
            entry["title"],
            MappingProxyType({key: rate * 1e12 for key, rate in entry["tera_per_s"].items()}),
            entry["bandwidth_gb_s"] * 1e9,
            entry["memory_gb"] * 1e9,
            entry["link_gb_s"] and entry["link_gb_s"] * 1e9,
            entry["source"],
            entry["note"],
        )
        for name, entry in entries.items()
    }
