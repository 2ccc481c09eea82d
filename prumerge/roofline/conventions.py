"""How papers count. The same model and tokens differ up to fivefold between them, so name the convention.

- flops: all matrix products of tower, projector and language model, 2 for each multiply-accumulate
- macs: half of that
- fastv: FastV's sum over layers of 4 n d^2 + 2 n^2 d + 2 n d m: multiply-accumulates, of visual tokens only,
  with two of the three feed-forward matrices
- pyramiddrop: the same with all three, 3 n d m
- llm-viewer-2024-03: what LLM-Viewer printed before 2024-03-19, with which the paper's Table 2 was computed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prumerge.errors import PrumergeError, unknown
from prumerge.roofline.configs import LanguageModel
from prumerge.roofline.cost import Op

FORMULAS = {
    "flops": "FLOPs of all matrix products until the first token, 2 for each multiply-accumulate",
    "macs": "MACs of all matrix products until the first token: half of the FLOPs",
    "fastv": "MACs of the visual tokens n: sum over layers of 4 n d^2 + 2 n^2 d + 2 n d m",
    "pyramiddrop": "MACs of the visual tokens n: sum over layers of 4 n d^2 + 2 n^2 d + 3 n d m",
    "llm-viewer-2024-03": "LLM-Viewer before 2024-03-19: operations of the language model, which counts "
    "softmax, norms and sums, and its time, traffic and sum of stored activations",
}


def check(name: str) -> str:
    if name not in FORMULAS:
        raise PrumergeError(unknown("convention", name, list(FORMULAS)))
    return name


def visual_macs(llm: LanguageModel, visual: Sequence[int], matrices: int) -> int:
    """FastV's formula (2 feed-forward matrices) or PyramidDrop's (3), with n visual tokens in each layer."""
    d, m = llm.width, llm.ffn
    return sum(4 * n * d * d + 2 * n * n * d + matrices * n * d * m for n in visual)


def count(name: str, flops: int, llm: LanguageModel, visual: Sequence[int]) -> float:
    """A number of FLOPs in the terms of another convention."""
    match check(name):
        case "macs":
            return flops / 2
        case "fastv":
            return visual_macs(llm, visual, 2)
        case "pyramiddrop":
            return visual_macs(llm, visual, 3)
        case _:
            return flops


# LLM-Viewer, https://github.com/hahnyuan/LLM-Viewer, as it was in early March 2024


@dataclass(frozen=True)
class Card:
    """A row of its hardware table: bytes/s and operations/s."""

    bandwidth: float
    fp16: float
    int8: float


CARDS = {
    "v100": Card(900e9, 112e12, 62e12),  # 62: no tensor cores; its author warns of it
    "a100-40gb": Card(1555e9, 312e12, 624e12),
    "a100": Card(2039e9, 312e12, 624e12),
    "h100": Card(3072e9, 1979e12 / 2, 3958e12 / 2),
    "h100-pcie": Card(2048e9, 1513e12 / 2, 3026e12 / 2),
}


@dataclass(frozen=True)
class Viewer:
    """Its answer for a prefill."""

    operations: float
    seconds: float
    memory_access: float
    """Bytes of weights, activations and KV read and written: its "total memory"."""
    activations: float
    """Bytes of activations stored, summed over all layers."""


def card(name: str) -> Card:
    if (key := name.strip().lower()) not in CARDS:
        raise PrumergeError(f"llm-viewer-2024-03 has no machine {name!r}; choose from: {', '.join(CARDS)}")
    return CARDS[key]


def llm_viewer(llm: LanguageModel, tokens: int, card: Card, bits: int) -> Viewer:
    """A prefill with weights, activations and KV cache all in `bits` bits.

    Its habits, kept on purpose: for the scores keys are read twice and queries never, the head has one
    operation per multiply-accumulate and one byte per weight, softmax, norms and sums are operations, the
    activation works on the hidden width, a residual sum reads one operand, 4 bits run at the rate of INT8.
    """
    peak = card.int8 if bits <= 8 else card.fp16
    ops = _viewer_ops(llm, tokens, bits / 8)
    return Viewer(
        sum(op.flops * op.count for op in ops),
        sum(max(op.flops / peak, op.bytes / card.bandwidth) * op.count for op in ops),
        sum(op.bytes * op.count for op in ops),
        sum(op.written * op.count for op in ops),
    )


def _viewer_ops(llm: LanguageModel, n: int, b: float) -> list[Op]:
    """`n` tokens, `b` bytes for everything stored."""
    d, h, f, layers = llm.width, llm.heads, llm.ffn, llm.layers
    kv = d // h * llm.kv_heads
    stream = n * d
    scores = n * n * h

    def linear(name: str, inputs: int, outputs: int) -> Op:
        return Op(
            name,
            2 * inputs * outputs * n,
            inputs * outputs * b,
            inputs * n * b,
            outputs * n * b,
            count=layers,
        )

    def cached(name: str) -> Op:
        return Op(name, 2 * d * kv * n, d * kv * b, stream * b, cache_written=kv * n * b, count=layers)

    def pointwise(name: str, operations: int, read: int, written: int) -> Op:
        return Op(name, operations, read=read * b, written=written * b, count=layers)

    product = 2 * n * n * d
    norm, add = pointwise("norm", 7 * stream, stream, stream), pointwise("add", stream, stream, stream)
    return [
        linear("q", d, d),
        cached("k"),
        cached("v"),
        Op("scores", product, written=scores * b, cache_read=2 * n * kv * b, count=layers),
        pointwise("softmax", 5 * scores, scores, scores),
        Op("values", product, read=scores * b, written=stream * b, cache_read=n * kv * b, count=layers),
        linear("out", d, d),
        norm,
        add,
        linear("gate", d, f),
        linear("up", d, f),
        pointwise("activation", 2 * stream, 2 * stream, stream),
        linear("down", f, d),
        norm,
        add,
        Op("head", d * llm.vocabulary, d * llm.vocabulary, d * b, llm.vocabulary * b),
    ]
