"""When are few tokens enough? A threshold on how sure the model is, chosen for a stated risk.

A question is answered from few tokens; where the answer's own probability is below the threshold it is asked
again with more, in the end with all. The risk is that the answer differs from the untouched model's. Among
thresholds the lowest is taken that is shown to keep the risk, by testing them from the strictest down and
stopping at the first that is not shown (fixed-sequence testing in Learn then Test, Angelopoulos et al.,
https://arxiv.org/abs/2110.01052). Pictures are drawn independently, questions about one picture are not: the
loss of a picture is the share of its questions that are answered otherwise, and p is Hoeffding and Bentkus'
(section 3 there), or the exact binomial one where every loss is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from prumerge.evaluate.faithful import share_interval
from prumerge.evaluate.records import Record
from prumerge.evaluate.scoring import exact

GRID = 200
"""Thresholds that are tried, at most."""


@dataclass(frozen=True)
class Step:
    """What one step of a cascade said to a question."""

    sure: float
    """The probability of its answer."""
    same: bool
    """Whether that is the untouched model's."""
    tokens: float
    """Visual tokens that the language model read."""


@dataclass(frozen=True)
class Case:
    """A question with what every step of the cascade would say, from the fewest tokens up; the last is the
    untouched model."""

    picture: str
    steps: tuple[Step, ...]

    def at(self, threshold: float) -> int:
        """Which step answers."""
        sure = (place for place, step in enumerate(self.steps) if step.sure >= threshold)
        return next(sure, len(self.steps) - 1)


def cases(groups: Mapping[str, Sequence[Record]], labels: Sequence[str]) -> list[Case]:
    """Questions that every step answered; `labels` name the steps but for `none`, the fewest tokens first."""
    by_place = [{record.place: record for record in groups[label]} for label in (*labels, "none")]
    untouched = by_place[-1]
    found = []
    for place, own in untouched.items():
        if all(place in answers for answers in by_place):
            steps = tuple(
                Step(one.probability, bool(exact(one.prediction, own.prediction)), one.tokens_kept)
                for one in (answers[place] for answers in by_place)
            )
            found.append(Case(own.cluster, steps))
    return found


def threshold(asked: Sequence[Case], agreement: float, confidence: float) -> float | None:
    """The lowest at which answers agree at this rate, with this confidence (both below 1); None where even
    asking the untouched model every time would not show it, because there are too few pictures."""
    sure = np.array([[step.sure for step in case.steps[:-1]] for case in asked])
    wrong = np.array([[not step.same for step in case.steps] for case in asked], float)
    _, picture = np.unique([case.picture for case in asked], return_inverse=True)
    tried = np.unique(np.quantile(sure, np.linspace(0, 1, GRID), method="higher"))
    found = None
    for value in (np.nextafter(1, 2), *tried[::-1]):  # above 1: the untouched model always answers
        enough = np.c_[sure >= value, np.full(len(sure), True)]
        lost = wrong[np.arange(len(wrong)), enough.argmax(1)]
        if p_value(np.bincount(picture, lost) / np.bincount(picture), 1 - agreement) > 1 - confidence:
            break
        found = float(value)
    return found


def p_value(losses: np.ndarray, risk: float) -> float:
    """How likely losses from 0 to 1 are so small by chance where their mean is above `risk`."""
    from scipy.stats import binom

    count, mean = len(losses), float(losses.mean())
    if np.isin(losses, (0, 1)).all():
        return float(binom.cdf(round(mean * count), count, risk))
    bentkus = float(np.e * binom.cdf(np.ceil(mean * count - 1e-9), count, risk))
    below = min(mean, risk)
    hoeffding = float(np.exp(-count * _relative_entropy(below, risk)))
    return min(1.0, bentkus, hoeffding)


def pictures_needed(agreement: float, confidence: float) -> int:
    """How many pictures show that rate with that confidence if nothing is answered otherwise at all."""
    return int(np.ceil(np.log(1 - confidence) / np.log(agreement)))


def _relative_entropy(a: float, b: float) -> float:
    return sum(x * float(np.log(x / y)) for x, y in ((a, b), (1 - a, 1 - b)) if x > 0)


@dataclass(frozen=True)
class Cost:
    """What a cascade does on some questions."""

    questions: int
    pictures: int
    same: float
    """Percent answered as by the untouched model; the next two are its 95 % interval over pictures."""
    same_low: float
    same_high: float
    tokens: float
    """Visual tokens read for a question on average, all steps that were tried counted."""
    untouched: float
    """The same of the untouched model."""
    answered: tuple[float, ...]
    """Percent of the questions that each step answered, the untouched model last."""


def cost(asked: Sequence[Case], threshold: float) -> Cost:
    """Of these questions at a threshold."""
    places = [case.at(threshold) for case in asked]
    same = [float(case.steps[place].same) for case, place in zip(asked, places, strict=True)]
    low, high = share_interval(same, [case.picture for case in asked])
    read = [
        sum(step.tokens for step in case.steps[: place + 1])
        for case, place in zip(asked, places, strict=True)
    ]
    return Cost(
        questions=len(asked),
        pictures=len({case.picture for case in asked}),
        same=100 * fmean(same),
        same_low=low,
        same_high=high,
        tokens=fmean(read),
        untouched=fmean(case.steps[-1].tokens for case in asked),
        answered=tuple(100 * fmean(place == step for place in places) for step in range(len(asked[0].steps))),
    )


def halves(asked: Sequence[Case], seed: int = 0) -> tuple[list[Case], list[Case]]:
    """Cases of one half of the pictures, drawn at random, and those of the other."""
    pictures = sorted({case.picture for case in asked})
    first = {pictures[place] for place in np.random.default_rng(seed).permutation(len(pictures))[::2]}
    return [case for case in asked if case.picture in first], [
        case for case in asked if case.picture not in first
    ]
