"""Medoids, sizes on attention and damped merging, on a reader that only ever saw all tokens and on one that
did not: what the default of the command line should be.

    python benchmarks/own_method.py --state DIR [--questions 96] [--models tiny,tiny:full]

Written down before anything was looked at:

- Two readers with the same vision tower: `tiny`, whose training saw subsets that favour no content, and
  `tiny:full`, whose language stages saw all 576 tokens and nothing else.
- Every method before the language model that needs neither words nor several frames, its options left at
  their defaults, and `medoids` with merge=0 and merge=1 beside its own 0.5; at 16, 36, 64 and 144 tokens;
  each read plain and with `size_bias`.
- 96 questions in each of the six mini-benchmarks, drawn as training drew them; the same for all.
- Compared, on each reader: medoids with every other method at each count and reading; every method with sizes
  and without at each count; medoids' merging 0 and 1 with 0.5. Differences in points with 95 % intervals over
  pictures; p by McNemar's exact test, after Holm's correction over all comparisons of all readers together.
  Better means p < 0.05 after that.
- The default method of the command line changes only if one is better than `prumerge` at 36 tokens on both
  readers, and keeps more of the real encoder's reading (real_tower.json, six layers, read plain) on
  photographs and on stamps. `size_bias` is on by default only for a method that it makes better on
  `tiny:full` at 36 and worse nowhere.
- Published whichever way it goes.

A run that was stopped goes on; answers are under DIR, what is committed is results/own_method.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from measure import save
from real_tower import COUNTS, methods

import prumerge
from prumerge.evaluate.answering import Asker
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Plan
from prumerge.evaluate.records import Record
from prumerge.evaluate.run import ask, sample
from prumerge.evaluate.statistics import Comparison, compare, holm
from prumerge.pipeline.options import Options

OWN = "medoids"
MERGED = {merge: f"medoids:merge={merge}" for merge in (0, 1)}
READINGS = {"plain": Options(), "sizes": Options(positions="compact", size_bias=True)}
Answers = dict[tuple[str, ...], Record]


@dataclass(frozen=True)
class Cell:
    """Where a method was asked."""

    model: str
    reading: str
    method: str
    count: int


def answered(state: Path, model: str, reading: str, questions: int) -> dict[Cell, Answers]:
    """Every question to every method at every count; also to the untouched model, whose count is 576."""
    loaded, processor = prumerge.load(model)
    plan = Plan.read(",".join([*methods(), *MERGED.values()]), ",".join(map(str, COUNTS)), "all", questions)
    asker = Asker(loaded, processor, READINGS[reading])
    name = f"{model.replace(':', '-')}-{reading}"
    jobs = plan.fixed(sample(asker, plan.showings))
    log = Log(state / f"{name}.jsonl", plan.settings(model, loaded, READINGS[reading]))
    total, done = len(jobs) * sum(len(about) for _, about in plan.showings), 0

    def track(new: int) -> None:
        nonlocal done
        if done * 50 // total < (done + new) * 50 // total:
            print(f"{name}: {done + new} of {total}", flush=True)
        done += new

    ask(asker, jobs, plan.showings, log, track)
    found: dict[Cell, Answers] = {}
    for record in log.records:
        method, _, count = record.method.partition("@")
        cell = Cell(model, reading, method, int(count or 576))
        found.setdefault(cell, {})[record.place] = record
    return found


def pairs(cells: dict[Cell, Answers]) -> Iterator[tuple[Cell, Cell]]:
    """What is compared, the first of two with the second."""
    for cell in cells:
        if cell.method == "none":
            continue
        own = replace(cell, method=OWN)
        if cell.method in MERGED.values():
            yield cell, own
        elif cell.method != OWN:
            yield own, cell
        if cell.reading == "sizes":
            yield cell, replace(cell, reading="plain")


def compared(cells: dict[Cell, Answers]) -> list[tuple[Cell, Cell, Comparison]]:
    """All of them, p after Holm's correction."""
    which = list(pairs(cells))
    found = []
    for first, second in which:
        one, other = cells[first], cells[second]
        places = list(one)
        scores = ([held[place].score for place in places] for held in (one, other))
        found.append(compare(*scores, [one[place].cluster for place in places]))
    corrected = holm([each.p for each in found])
    return [(*pair, replace(each, p=p)) for pair, each, p in zip(which, found, corrected, strict=True)]


def row(cell: Cell, answers: Answers, whole: Answers) -> dict[str, Any]:
    """Right answers and agreement with the untouched model, in percent, and the mean of nats."""
    records = answers.values()
    return {
        **vars(cell),
        "right": 100 * fmean(record.score for record in records),
        "same": 100 * fmean(one.prediction == whole[place].prediction for place, one in answers.items()),
        "nats": fmean(record.divergence for record in records),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--models", default="tiny,tiny:full")
    options = parser.parse_args()
    options.state.mkdir(parents=True, exist_ok=True)
    cells: dict[Cell, Answers] = {}
    for model in options.models.split(","):
        for reading in READINGS:
            cells |= answered(options.state, model, reading, options.questions)
    rows = [
        row(cell, answers, cells[Cell(cell.model, "plain", "none", 576)]) for cell, answers in cells.items()
    ]
    comparisons = [
        {"first": vars(first), "second": vars(second), "comparison": vars(found)}
        for first, second, found in compared(cells)
    ]
    save("own_method", {"questions": options.questions, "rows": rows, "comparisons": comparisons})


if __name__ == "__main__":
    main()
