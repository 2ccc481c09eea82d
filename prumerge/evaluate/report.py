"""From records to a table: scores, tokens, paired comparisons; as text, CSV, JSON and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prumerge.evaluate.records import Record, by_method
from prumerge.evaluate.scoring import accuracy, all_right, f1, mme, score, yes_or_no
from prumerge.evaluate.statistics import Comparison, compare, holm


@dataclass(frozen=True)
class Row:
    """One method over all benchmarks."""

    method: str
    tokens: float
    """Mean visual tokens the language model read; the next two are the 5th and 95th percentile."""
    tokens_low: float
    tokens_high: float
    scores: dict[str, float]
    """Each benchmark by its own measure."""
    accuracy: float
    """Percent of all questions, every question counting the same."""
    against_none: Comparison | None
    """All questions, paired with those of `none`; p corrected over the methods."""
    encode_ms: float
    reduce_ms: float
    prefill_ms: float
    decode_ms: float


# What each benchmark is scored by, and the public benchmark that it mirrors.
MEASURES = {
    "attribute": ("VQA accuracy", "VQAv2"),
    "choice": ("accuracy", "ScienceQA"),
    "reading": ("VQA accuracy", "TextVQA"),
    "existence": ("mean F1 of 3 splits", "POPE"),
    "perception": ("accuracy + acc+, summed over subtasks", "MME"),
    "circular": ("all rotations right", "MMBench"),
}


def measure(benchmark: str, records: Sequence[Record]) -> float:
    """The benchmark's own measure."""
    if benchmark == "existence":
        splits = sorted({record.split for record in records})
        pairs = {
            split: [(yes_or_no(r.prediction), r.gold) for r in records if r.split == split]
            for split in splits
        }
        return sum(f1(pairs[split])["f1"] for split in splits) / len(splits)
    if benchmark == "perception":
        return mme((record.split, record.group, record.score) for record in records)
    if benchmark == "circular":
        return all_right((record.group, record.score) for record in records)
    return accuracy(record.score for record in records)


def summarise(groups: dict[str, list[Record]]) -> list[Row]:
    """A row for each method, in the order given; methods are compared on the questions that both answered."""
    base = {record.id: record.score for record in groups.get("none", [])}
    rows = []
    for method, records in groups.items():
        kept = [record.tokens_kept for record in records]
        names = [name for name in MEASURES if any(record.benchmark == name for record in records)]
        both = [record for record in records if record.id in base and method != "none"]
        times = {
            stage: float(np.mean([getattr(record, stage) for record in records]))
            for stage in ("encode_ms", "reduce_ms", "prefill_ms", "decode_ms")
        }
        rows.append(
            Row(
                method=method,
                tokens=float(np.mean(kept)),
                tokens_low=float(np.percentile(kept, 5)),
                tokens_high=float(np.percentile(kept, 95)),
                scores={name: measure(name, [r for r in records if r.benchmark == name]) for name in names},
                accuracy=accuracy(record.score for record in records),
                against_none=paired(both, base) if both else None,
                **times,
            )
        )
    return _corrected(rows)


def rescored(record: Record) -> Record:
    """The record with its answer scored anew."""
    return replace(record, score=score(record.benchmark, record.prediction, record.gold, record.options))


def paired(records: Sequence[Record], other: dict[str, float]) -> Comparison:
    """Records against another method's scores by question."""
    return compare(
        [record.score for record in records],
        [other[record.id] for record in records],
        [str(record.picture) for record in records],
    )


@dataclass(frozen=True)
class Rivals:
    """Two methods at the same number of visual tokens."""

    first: str
    second: str
    comparison: Comparison

    def sentence(self) -> str:
        gap = self.comparison
        return (
            f"{self.first} - {self.second}: {gap.difference:+.1f} points "
            f"[{gap.low:+.1f}, {gap.high:+.1f}], p = {gap.p:.2g}"
        )


def rivals(groups: dict[str, list[Record]]) -> list[Rivals]:
    """The first method against each other one at the same tokens (p corrected over all these pairs)."""
    budgets: dict[int, list[str]] = {}
    for label, records in groups.items():
        budgets.setdefault(round(float(np.mean([record.tokens_kept for record in records]))), []).append(
            label
        )
    pairs = [(labels[0], label) for labels in budgets.values() for label in labels[1:]]
    compared = []
    for first, second in pairs:
        other = {record.id: record.score for record in groups[second]}
        compared.append(paired([record for record in groups[first] if record.id in other], other))
    corrected = holm([comparison.p for comparison in compared])
    return [
        Rivals(first, second, replace(comparison, p=p))
        for (first, second), comparison, p in zip(pairs, compared, corrected, strict=True)
    ]


def as_csv(rows: Sequence[Row]) -> str:
    """One line a method."""
    out = io.StringIO()
    names = list(rows[0].scores)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["method", "tokens", "tokens_p5", "tokens_p95", *names, "accuracy", "difference", "low", "high", "p"]
    )
    for row in rows:
        against = row.against_none
        gap = [against.difference, against.low, against.high, against.p] if against else [""] * 4
        scores = [row.scores.get(name, "") for name in names]
        writer.writerow(
            [row.method, row.tokens, row.tokens_low, row.tokens_high, *scores, row.accuracy, *gap]
        )
    return out.getvalue()


def pareto(rows: Sequence[Row]) -> Any:
    """Accuracy against visual tokens as a matplotlib Figure; a line joins the budgets of one method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    families = dict.fromkeys(row.method.rpartition("@")[0] or row.method for row in rows)
    for name in families:
        points = sorted(
            (r.tokens, r.accuracy) for r in rows if (r.method.rpartition("@")[0] or r.method) == name
        )
        if name == "none":
            axes.axhline(points[0][1], color="black", linewidth=1, linestyle="--", label="none (all tokens)")
        else:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="visual tokens (mean)", ylabel="% of questions right", xscale="log")
    ticks = sorted({round(row.tokens) for row in rows if row.method != "none"})
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _corrected(rows: list[Row]) -> list[Row]:
    """Holm's correction over all methods compared with `none`."""
    p = holm([row.against_none.p for row in rows if row.against_none])
    corrected = iter(p)
    return [
        replace(row, against_none=replace(row.against_none, p=next(corrected))) if row.against_none else row
        for row in rows
    ]


__all__ = ["Rivals", "Row", "as_csv", "by_method", "measure", "pareto", "rescored", "rivals", "summarise"]
