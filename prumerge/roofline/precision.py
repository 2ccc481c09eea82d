"""Bits of what is stored, and the arithmetic that multiplies it: `w4a16`, `w8a8kv8`, `w8a8:fp8`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from prumerge.errors import PrumergeError

WIDTHS = {"w": (2, 3, 4, 8, 16, 32), "a": (4, 8, 16, 32), "kv": (2, 3, 4, 8, 16, 32)}
ARITHMETIC = {"int4": 4, "int8": 8, "fp8": 8, "fp16": 16, "fp32": 32}
"""Operands may be narrower than the arithmetic (they are widened first), never wider."""


@dataclass(frozen=True)
class Precision:
    """Bits of weights, activations and the KV cache; 16 stands for fp16 and bf16 alike."""

    weights: int = 16
    activations: int = 16
    cache: int = 16
    arithmetic: str = "fp16"

    @property
    def name(self) -> str:
        """The shortest spec that reads back as this."""
        spec = f"w{self.weights}a{self.activations}"
        if self.cache != self.activations:
            spec += f"kv{self.cache}"
        default = _arithmetic(self.weights, self.activations)
        return spec if self.arithmetic == default else f"{spec}:{self.arithmetic}"

    def outside(self) -> Precision:
        """Of tower, projector, embedding and head, which quantized checkpoints leave in 16 bits."""
        wide = 32 if self.activations == 32 else 16
        return replace(self, weights=wide, activations=wide, cache=wide, arithmetic=_arithmetic(wide, wide))


def parse(spec: str) -> Precision:
    """Read `wWEIGHTSaACTIVATIONS[kvCACHE][:ARITHMETIC]`.

    The cache has the activations' bits and the arithmetic is the wider operand's, unless said otherwise.
    """
    found = re.fullmatch(r"w(\d+)a(\d+)(?:kv(\d+))?(?::(\w+))?", spec.strip().lower())
    if not found:
        raise PrumergeError(
            f"{spec!r} is no bit width; write weights and activations as in w4a16, w8a8kv8, w8a8:fp8"
        )
    weights, activations, cache = int(found[1]), int(found[2]), int(found[3] or found[2])
    for letter, width in (("w", weights), ("a", activations), ("kv", cache)):
        if width not in WIDTHS[letter]:
            choices = ", ".join(f"{letter}{choice}" for choice in WIDTHS[letter])
            raise PrumergeError(f"{letter}{width} in {spec!r} is impossible; choose from: {choices}")
    arithmetic = found[4] or _arithmetic(weights, activations)
    if arithmetic not in ARITHMETIC:
        raise PrumergeError(f"there is no arithmetic {arithmetic!r}; choose from: {', '.join(ARITHMETIC)}")
    if ARITHMETIC[arithmetic] < max(weights, activations):
        raise PrumergeError(f"{max(weights, activations)}-bit operands cannot be multiplied in {arithmetic}")
    return Precision(weights, activations, cache, arithmetic)


def _arithmetic(weights: int, activations: int) -> str:
    width = max(weights, activations)
    return next(name for name, bits in ARITHMETIC.items() if bits >= width)
