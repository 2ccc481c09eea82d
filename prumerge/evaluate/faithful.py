"""Does a method leave the model's answers as they are? Agreement with the untouched model, right or wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from prumerge.evaluate.records import Record
from prumerge.evaluate.scoring import exact
from prumerge.evaluate.statistics import clustered_interval

if TYPE_CHECKING:
    from prumerge.evaluate.report import Row


@dataclass(frozen=True)
class Faithful:
    """How near a method's answers are to those of the untouched model."""

    same: float
    """Percent of questions with the same answer, in VQA's normal form."""
    same_low: float
    """This and the next: 95 % interval over pictures."""
    same_high: float
    nats: float | None
    """The divergence of the next token, on average over the tokens of answers until the first that differs;
    None where it was not measured."""


def faithful(records: Sequence[Record], untouched: Mapping[tuple[str, str], Record]) -> Faithful:
    """Of answers to questions that the untouched model answered as well."""
    same = [exact(record.prediction, untouched[record.place].prediction) for record in records]
    compared = sum(record.compared for record in records)
    low, high = share_interval(same, [record.cluster for record in records])
    return Faithful(
        100 * fmean(same),
        low,
        high,
        sum(record.divergence for record in records) / compared if compared else None,
    )


def share_interval(each: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """95 % interval in percent of the mean of values from 0 to 1, by drawing whole pictures.

    Where all are 1, or all 0, drawing them again says nothing: then it is the exact interval of as many
    successes as there are pictures (Clopper and Pearson).
    """
    low, high = clustered_interval(np.asarray(each, float), clusters)
    beyond = 100 * (1 - 0.025 ** (1 / len(set(clusters))))
    if min(each) == 1:
        return 100 - beyond, 100.0
    if max(each) == 0:
        return 0.0, beyond
    return low, high


@dataclass(frozen=True)
class Choice:
    """The cheapest setting that answers as the untouched model does, at a rate."""

    row: Row
    sure: bool
    """Whether its whole interval is above the rate, and not only its mean."""


def cheapest(rows: Sequence[Row], rate: float) -> Choice | None:
    """The method and budget with the fewest visual tokens that gives the same answer to `rate` percent of the
    questions at least; one that is sure to goes before any that is not. None where no setting does."""
    found: dict[bool, list[Row]] = defaultdict(list)
    for row in rows:
        if row.faithful and row.faithful.same >= rate:
            found[row.faithful.same_low >= rate].append(row)
    for sure in (True, False):
        if found[sure]:
            return Choice(min(found[sure], key=lambda row: (row.tokens, _milliseconds(row))), sure)
    return None


def _milliseconds(row: Row) -> float:
    return row.reduce_ms + row.prefill_ms + row.decode_ms
