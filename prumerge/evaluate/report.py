"""From records to a table: scores, tokens, paired comparisons; as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from itertools import product
from statistics import fmean

import numpy as np

from prumerge.evaluate.faithful import Faithful, faithful
from prumerge.evaluate.records import Record
from prumerge.evaluate.scoring import accuracy
from prumerge.evaluate.statistics import Comparison, compare, holm
from prumerge.evaluate.tasks import names, task


@dataclass(frozen=True)
class Row:
    """One method over all tasks."""

    method: str
    questions: int
    tokens: float
    """Mean visual tokens the language model read; the next two are the 5th and 95th percentile."""
    tokens_low: float
    tokens_high: float
    scores: dict[str, float]
    """Each task by its own measure."""
    accuracy: float
    """Percent of all questions, every question counting the same."""
    against_none: Comparison | None
    """All questions that both answered, paired; p corrected over the methods."""
    encode_ms: float
    reduce_ms: float
    prefill_ms: float
    decode_ms: float
    faithful: Faithful | None = None
    """Against the untouched model's answers, right or wrong."""
    spec: str = ""
    """The reducer that ran; its `keep` is smaller than the budget where it makes tokens beside it."""
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    """What else a task's papers report, by task."""
    cut: dict[str, int] = field(default_factory=dict)
    """Answers that were cut at the most tokens that their task asks for, of tasks with any."""


BLIND = "blind"


def summarise(groups: dict[str, list[Record]]) -> list[Row]:
    """A row for each method, in the order given, and one for answers that never look at the picture."""
    base = {record.place: record for record in groups.get("none", [])}
    rows = [_row(method, records, {} if method == "none" else base) for method, records in groups.items()]
    return [*_corrected(rows), _row(BLIND, blind(max(groups.values(), key=len)), {})]


def blind(records: Sequence[Record]) -> list[Record]:
    """The same questions, each task answered by the one answer that scores most there, of the right answers
    that are most frequent."""
    best: list[Record] = []
    for name in tasks(records):
        asked = [
            replace(
                record, tokens_kept=0, encode_ms=0.0, reduce_ms=0.0, prefill_ms=0.0, decode_ms=0.0, cut=False
            )
            for record in records
            if record.task == name
        ]
        frequent = Counter(answer for record in asked for answer in record.gold)
        most = max(4, min(64, _TRIES // len(asked)))
        answers = sorted(answer for answer, _ in frequent.most_common(most))
        tries = [[rescored(replace(record, prediction=answer)) for record in asked] for answer in answers]
        most_right: list[Record] = max(tries, key=task(name).summary)
        best += most_right
    return best


_TRIES = 1_000_000  # of answers that look at nothing, in each task at most


def tasks(records: Iterable[Record]) -> list[str]:
    """Those that the records belong to."""
    there = {record.task for record in records}
    return [name for name in names() if name in there]


def columns(rows: Sequence[Row]) -> list[str]:
    """The tasks that any method was asked."""
    return [name for name in names() if any(name in row.scores for row in rows)]


def complete(rows: Sequence[Row]) -> list[Row]:
    """Those who answered as many questions as anyone: the others stand for an easier or harder test."""
    most = max(row.questions for row in rows)
    return [row for row in rows if row.questions == most]


def few(rows: Sequence[Row], least: int = 100) -> str:
    """What to think of a run of few questions; nothing where there are enough."""
    each = max(row.questions for row in rows) // max(1, len(columns(rows)))
    if each >= least:
        return ""
    return (
        f"{each} questions in each task are few: a single answer moves its score by {100 / each:.1f} "
        "points; ask more by --questions before you believe a difference."
    )


def cut_short(rows: Sequence[Row]) -> list[str]:
    """For tasks with answers that were cut: how many, and where."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.cut)
    return [
        f"{count} {'answer' if count == 1 else 'answers'} of {name} {'was' if count == 1 else 'were'} cut at "
        f"{task(name).max_new_tokens} tokens."
        for name, count in counts.items()
    ]


def beside_keep(rows: Sequence[Row]) -> list[str]:
    """For methods that hand over more tokens than their `keep`: what makes up their budgets."""
    made: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        method, _, budget = row.method.rpartition("@")
        keep = re.search(r"keep=(\d+)(?:@\w+)?$", row.spec)
        if keep and budget.isdecimal() and 0 < (more := int(budget) - int(keep[1])) < int(budget):
            made[method].append(f"@{budget} is keep={keep[1]} and {more} for the rest")
    return [f"{method}: {', '.join(budgets)}." for method, budgets in made.items()]


def _row(method: str, records: Sequence[Record], base: dict[tuple[str, str], Record]) -> Row:
    kept = [record.tokens_kept for record in records]
    both = [record for record in records if record.place in base]
    by_task = {name: [record for record in records if record.task == name] for name in tasks(records)}
    details = {name: task(name).details(own) for name, own in by_task.items()}
    return Row(
        method=method,
        questions=len(records),
        tokens=fmean(kept),
        tokens_low=float(np.percentile(kept, 5)),
        tokens_high=float(np.percentile(kept, 95)),
        scores={name: task(name).summary(own) for name, own in by_task.items()},
        accuracy=accuracy(record.score for record in records),
        against_none=paired(both, {place: record.score for place, record in base.items()}) if both else None,
        faithful=faithful(both, base) if both else None,
        encode_ms=fmean(record.encode_ms for record in records),
        reduce_ms=fmean(record.reduce_ms for record in records),
        prefill_ms=fmean(record.prefill_ms for record in records),
        decode_ms=fmean(record.decode_ms for record in records),
        spec=records[0].spec,
        details={name: told for name, told in details.items() if told},
        cut=dict(Counter(record.task for record in records if record.cut)),
    )


def rescored(record: Record) -> Record:
    """The record with its answer scored anew."""
    return replace(record, score=task(record.task).score(record.asked, record.prediction))


def paired(records: Sequence[Record], other: dict[tuple[str, str], float]) -> Comparison:
    """Records against another method's scores by question."""
    return compare(
        [record.score for record in records],
        [other[record.place] for record in records],
        [record.cluster for record in records],
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
    """At each number of tokens the first method, and each with its own choice, against all others.

    p is corrected over all these pairs.
    """
    budgets: dict[int, list[str]] = defaultdict(list)
    for label, records in groups.items():
        if label != "none":
            budgets[round(fmean(record.tokens_kept for record in records))].append(label)
    compared: dict[tuple[str, str], Comparison] = {}
    for labels in budgets.values():
        leaders = dict.fromkeys([labels[0], *(label for label in labels if label.endswith("@auto"))])
        for first, second in product(leaders, labels):
            other = {record.place: record.score for record in groups[second]}
            both = [record for record in groups[first] if record.place in other]
            if both and first != second and (second, first) not in compared:
                compared[first, second] = paired(both, other)
    corrected = holm([comparison.p for comparison in compared.values()])
    return [
        Rivals(first, second, replace(comparison, p=p))
        for ((first, second), comparison), p in zip(compared.items(), corrected, strict=True)
    ]


def as_csv(rows: Sequence[Row], beside: Mapping[str, Mapping[str, object]] | None = None) -> str:
    """One line a method; `beside` holds more columns, each with what it says of some of the methods."""
    out = io.StringIO()
    asked, gaps = columns(rows), [field.name for field in fields(Comparison)]
    more = list(
        dict.fromkeys((name, one) for name in asked for row in rows for one in row.details.get(name, {}))
    )
    writer = csv.writer(out, lineterminator="\n")
    near = [field.name for field in fields(Faithful)]
    head = ["method", "questions", "tokens", "tokens_p5", "tokens_p95", *asked, "accuracy", *gaps, *near]
    beside = beside or {}
    writer.writerow([*head, *(f"{name}: {one}" for name, one in more), *beside])
    for row in rows:
        tokens = [row.tokens, row.tokens_low, row.tokens_high]
        scores = [row.scores.get(name, "") for name in asked]
        gap = astuple(row.against_none) if row.against_none else [""] * len(gaps)
        same = astuple(row.faithful) if row.faithful else [""] * len(near)
        detailed = [row.details.get(name, {}).get(one, "") for name, one in more]
        others = [column.get(row.method, "") for column in beside.values()]
        measured = [*tokens, *scores, row.accuracy, *gap, *same]
        writer.writerow([row.method, row.questions, *measured, *detailed, *others])
    return out.getvalue()


def _corrected(rows: list[Row]) -> list[Row]:
    """Holm's correction over all methods compared with `none`."""
    p = holm([row.against_none.p for row in rows if row.against_none])
    corrected = iter(p)
    return [
        replace(row, against_none=replace(row.against_none, p=next(corrected))) if row.against_none else row
        for row in rows
    ]
