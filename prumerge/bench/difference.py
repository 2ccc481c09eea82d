"""Why a measured time is not the predicted one, divided into parts that were measured themselves.

    measured - predicted = launches + products + others + Python + scatter

launches: operators x what the CPU takes to ask for one. products, others: what operators that multiply
matrices, and all the rest, take above the prediction for them (of products also what more FLOPs take at the
peak). Python: what is left of the best round, while no operator ran. scatter: the median above the best
round. Operators are watched one by one, in runs of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from prumerge.bench.timer import Spread
from prumerge.bench.trace import Traced
from prumerge.roofline.estimate import Stage

TOLERATED = 0.25
"""Of the prediction; a smaller difference needs no reason."""
SCATTERED = 1.3
"""Third quartile over the first, above which a busy machine is the reason."""

MEANINGS = {
    "launches": "operators x what the CPU takes to ask for one",
    "slow products": "products of matrices below the machine's rate",
    "more FLOPs": "the products of the model are more than those of the prediction",
    "other operators": "norms, sums, copies, masks: more of them, or slower, than predicted",
    "Python": "the time in which no operator ran",
    "scatter": "the median round above the best one",
    "fewer FLOPs": "the method computes less than the dearest one, which is predicted",
    "caches": "the prediction waits for memory, and it took less: data came from caches",
    "machine busy": "others run, and the rounds scatter",
}
"""What each reason says, for a line below a table."""


@dataclass(frozen=True)
class Parts:
    """Milliseconds of a difference, by what they went into; sums over stages are those of a whole answer."""

    launches: float = 0.0
    products: float = 0.0
    extra_flops: float = 0.0
    """What FLOPs beyond the prediction take at the machine's rate; below zero where there are fewer."""
    others: float = 0.0
    python: float = 0.0
    scatter: float = 0.0
    waiting: float = 0.0
    """Of the prediction: what it waits for memory."""

    def __add__(self, other: Parts) -> Parts:
        return Parts(
            *(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    def __mul__(self, times: int) -> Parts:
        return Parts(*(times * mine for mine in vars(self).values()))


def divided(
    times: Sequence[float], predicted: Stage | None, traced: Traced, launch: float, steps: int = 1
) -> Parts:
    """The difference of one stage, measured several times, or of one of its `steps` of which all were traced;
    milliseconds."""
    best = min(times)
    launches = launch * traced.operators / steps
    products, others = traced.products_ms / steps, traced.others_ms / steps
    python, scatter = max(0.0, best - launches - products - others), median(times) - best
    if predicted is None:
        return Parts(launches, products, 0.0, others, python, scatter)
    multiplying = 1e3 * sum(predicted.seconds(op) * op.count for op in predicted.ops if op.flops)
    moving = 1e3 * predicted.time - multiplying
    arithmetic = next(op.arithmetic for op in predicted.ops if op.flops)
    extra = 1e3 * (traced.flops / steps - predicted.flops) / predicted.machine.rate(arithmetic)
    return Parts(
        launches=launches,
        products=products - multiplying - max(extra, 0.0),
        extra_flops=extra,
        others=others - moving,
        python=python,
        scatter=scatter,
        waiting=1e3 * predicted.time * predicted.shares.get("memory", 0.0),
    )


def reason(measured: Spread, predicted: float, parts: Parts, *, busy: bool) -> str:
    """The largest part of a difference, and what share of it that is; empty where the difference is small, or
    where less than predicted was measured and nothing accounts for half of that."""
    gap = measured.median - predicted
    if abs(gap) <= TOLERATED * predicted:
        return ""
    if busy and measured.q75 > SCATTERED * measured.q25:
        return "machine busy"
    if gap < 0:
        causes = {"fewer FLOPs": -parts.extra_flops, "caches": parts.waiting}
    else:
        causes = {
            "launches": parts.launches,
            "slow products": parts.products,
            "more FLOPs": parts.extra_flops,
            "other operators": parts.others,
            "Python": parts.python,
            "scatter": parts.scatter,
        }
    name = max(causes, key=lambda cause: causes[cause])
    share = min(causes[name] / abs(gap), 1.0)
    return f"{name} {share:.0%}" if gap > 0 or share >= 0.5 else ""
