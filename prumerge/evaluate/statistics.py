"""Are two methods different? Paired tests on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """Method a against method b on the same questions, in points (percent of the scale)."""

    difference: float
    low: float
    high: float
    p: float
    """Exact McNemar test; corrected for several comparisons where `holm` was applied."""
    flips: float
    """Percent of questions on which one of the two is right and the other wrong."""


def compare(a: Sequence[float], b: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> Comparison:
    """Difference of the means, 95 % bootstrap interval over pictures, and McNemar's exact test."""
    first, second = np.asarray(a, float), np.asarray(b, float)
    better, worse = int((first > second).sum()), int((first < second).sum())
    low, high = clustered_interval(first - second, clusters, seed=seed)
    return Comparison(
        100 * float((first - second).mean()),
        low,
        high,
        mcnemar(better, worse),
        100 * (better + worse) / len(first),
    )


def mcnemar(better: int, worse: int) -> float:
    """Two-sided exact p-value that so uneven a split of the discordant questions is chance."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def clustered_interval(
    values: np.ndarray, clusters: Sequence[str], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean in points; whole pictures are drawn, their questions belong together."""
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(cluster, weights=values), np.bincount(cluster)
    times = _times_drawn(len(sums), draws, seed)
    low, high = np.quantile(
        times @ sums.astype(np.float32) / (times @ sizes.astype(np.float32)), [0.025, 0.975]
    )
    return 100 * float(low), 100 * float(high)


@lru_cache(maxsize=2)  # methods are compared on the same pictures again and again
def _times_drawn(count: int, draws: int, seed: int) -> np.ndarray:
    """How often each of `count` pictures is in each of `draws` samples with replacement."""
    random = np.random.default_rng(seed)
    return random.multinomial(count, np.full(count, 1 / count), draws).astype(np.float32)


def sign_flips(differences: Sequence[int]) -> float:
    """Two-sided exact p-value of the sum of paired differences, if the sign of each were chance.

    One difference stands for a picture with all questions about it, which may depend on each other.
    """
    total = np.abs(np.asarray(differences, int)).sum()
    chances = np.zeros(2 * total + 1)  # of every sum from -total to total
    chances[total] = 1
    for size in np.abs(np.asarray(differences, int)):
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    return float(min(1, chances[np.abs(np.arange(-total, total + 1)) >= abs(sum(differences))].sum()))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of p-values for testing several hypotheses at once."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate([p[place] * (len(p) - rank) for rank, place in enumerate(order)])
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1)
    return result.tolist()
