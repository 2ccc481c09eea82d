"""Sizes on attention and the positions of what is left: what each does to readers, and what they do together.

    python benchmarks/positions.py --state DIR [--only tiny,real,...]
    python benchmarks/positions.py --state DIR --again PARTS

Why: on a real language model (`real`) sizes on attention at first looked harmful, and 24 of its questions,
about eight pictures, showed why. Without gaps in the positions, 36 tokens stand nearer to the question than
576 did, and rotary attention favours what is near; that makes up for their small number. Told their sizes as
well, they are attended to too much. With the positions of the places that tokens stand for, sizes brought the
reader nearer to what it says untouched. So positions are a part of the question.

Written down before anything else was looked at:

- Readers: `tiny`, which saw subsets of tokens in training (6 x 24 questions), and `tiny:full`, which never
  did (6 x 48), on scenes as training drew them and on unseen ones; `tiny:hard` on 168 questions about hard
  scenes; and `real`, a SmolLM2 behind a ViT-S/14 that never saw few tokens, on 120 questions about 60
  pictures of easy-VQA's test split (none of the eight; 200 about 100 were planned, and cut for want of time
  before an answer was looked at).
- Four readings: positions compact or original, each plain and with `size_bias`.
- Methods before the language model that need neither words nor several frames, options at their defaults: on
  the embedded readers every one at 36 tokens, and the twelve of `FEW` at 16 and 144; on `real` these
  twelve at 36, and the five of `FEWEST` at 16 and 144.
- Measured against the untouched reader: right answers in percent, and nats (the Kullback-Leibler divergence
  of next tokens, summed until the first word that differs).
- Compared, for each method and count, as pairs: both (original, sizes) with neither (compact, plain); both
  with sizes alone; original positions alone with neither; sizes alone with neither. p by McNemar's exact test
  for right answers and by Wilcoxon's signed ranks of pictures' mean nats; Holm's correction over all
  comparisons of a measure on a reader's questions. Better or worse means p < 0.05 after that.
- With `size_bias`, positions become original unless said otherwise, if at 36 tokens both is nearer (nats)
  than sizes alone for more than half of `FEW` on `real` and on both questions of `tiny:full`, and `medoids`
  has nowhere fewer right by it.
- The documents recommend both for a method, if at 36 tokens it is nearer than neither on `real` and on both
  questions of `tiny:full`, and has nowhere fewer right, at no count.
- `size_bias` is on by default only if that is so for every one of `FEW`: entrances that hand over a prompt
  (`reduce`, vLLM) cannot carry it, so that a default for some would make entrances differ.
- Published whichever way it goes.

Asked again on a GPU, written down before a question was asked there: 120 questions were too few to tell where
`real` is within three points of what it says untouched. So `real-again` asks the same reader 600 questions
about 300 other pictures of the same split (from number 9 on, none of the 60), in float32, with the same
methods, counts, readings, tests and corrections. What held is each method's verdict (nearer, farther, not
told) on `real` that it has here as well; what did not is named. The rule for a recommendation is applied once
more with these answers in the place of `real`'s, and where it says something else, the documents say that.
(Seen afterwards: three of the eight pictures of the first look, numbers 0, 5, ..., 35, are among these.)
`--again PARTS` asks (PARTS is what `real_llava.py pack` made) and writes this part beside the others.

A run that was stopped goes on; answers are under DIR, what is committed is results/positions.json.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from hard import Progress, before_language
from measure import DEVICE, RESULTS, part_of, save
from scipy.stats import wilcoxon

import prumerge
from prumerge.bench.record import record as machine_and_versions
from prumerge.catalogue import entry
from prumerge.errors import MissingPackage
from prumerge.evaluate.answering import Asker
from prumerge.evaluate.asked import Showing
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Job, Plan
from prumerge.evaluate.records import Record, by_method
from prumerge.evaluate.run import PICTURES, ask, sample
from prumerge.evaluate.statistics import clustered_interval, compare, holm
from prumerge.loading.real import ADAPTER, Parts, assemble
from prumerge.loading.real.parts import LANGUAGE
from prumerge.pipeline.options import Options

AGAIN = "real-again"
READINGS = {
    "neither": Options(positions="compact"),
    "positions": Options(positions="original"),
    "sizes": Options(positions="compact", size_bias=True),
    "both": Options(positions="original", size_bias=True),
}
PAIRS = (("both", "neither"), ("both", "sizes"), ("positions", "neither"), ("sizes", "neither"))
FEWEST = ("medoids", "scope", "divprune", "spatial", "prumerge_plus")
FEW = (*FEWEST, "prumerge", "topk", "visionzip", "vispruner", "prunesid", "pool", "random")


@dataclass(frozen=True)
class Asked:
    """A reader and questions."""

    model: str
    task: str
    questions: int
    unseen: bool = False
    digits: tuple[int, ...] = ()
    """Of easy-VQA the last digits of the numbers of its pictures."""
    together: int = PICTURES
    """Pictures that are encoded together, at least."""

    def plan(self, methods: Sequence[str], counts: str) -> Plan:
        """Methods at counts; of easy-VQA all questions, which `showings` draws from."""
        count = None if self.task == "easy_vqa" else self.questions
        return Plan.read(",".join(methods), counts, self.task, count, unseen=self.unseen)

    def showings(self, plan: Plan) -> Sequence[Showing]:
        """What is asked: of easy-VQA two questions about each picture, from the eighth on."""
        if self.task != "easy_vqa":
            return plan.showings
        later = list(enumerate(plan.showings))[7:]
        pictures = [one for number, one in later if number % 10 in self.digits]
        return [(opens, questions[:2]) for opens, questions in pictures[: self.questions // 2]]

    def plans(self) -> list[Plan]:
        """What is asked of whom."""
        if self.model == "real":
            return [self.plan(FEW, "36"), self.plan(FEWEST, "16,144")]
        names = [name for name in before_language() if "text" not in entry(name).needs]
        return [self.plan(names, "36"), self.plan(FEW, "16,144")]


ASKED = {
    "tiny-full": Asked("tiny:full", "all", 48),
    "tiny-full-unseen": Asked("tiny:full", "all", 48, unseen=True),
    "tiny-hard": Asked("tiny:hard", "hard", 168),
    "tiny": Asked("tiny", "all", 24),
    "tiny-unseen": Asked("tiny", "all", 24, unseen=True),
    "real": Asked("real", "easy_vqa", 120, digits=(7,)),
    AGAIN: Asked("real", "easy_vqa", 600, digits=(0, 4, 9), together=48),
}
Answers = dict[str, dict[str, list[Record]]]
"""By reading and label."""


def answered(name: str, state: Path, parts: Path | None = None) -> Answers:
    """All answers of a reader, which is put together from `parts` if they are given."""
    asked, found = ASKED[name], Answers()
    model, processor = prumerge.load(asked.model) if parts is None else assembled(parts)
    for reading, options in READINGS.items():
        asker, jobs = Asker(model, processor, options), dict[str, Job]()
        for plan in asked.plans():
            showings = asked.showings(plan)
            jobs |= {job.label: job for job in plan.fixed(sample(asker, showings))}
        log = Log(state / f"{name}-{reading}.jsonl", asked.plans()[0].settings(asked.model, model, options))
        total = len(jobs) * sum(len(about) for _, about in showings)
        ask(asker, list(jobs.values()), showings, log, Progress(f"{name}, {reading}", total), asked.together)
        places = {(one.task, one.id) for _, about in showings for one in about}
        records = [record for record in log.records if record.place in places]
        found[reading] = {label: rows for label, rows in by_method(records).items() if label in jobs}
    return found


def assembled(parts: Path) -> tuple[Any, Any]:
    """`real`, of what `real_llava.py pack` made and what is trained here."""
    model, processor = assemble(Parts(parts / "tower.safetensors", parts / LANGUAGE[1], ADAPTER))
    processor.tokenizer.padding_side = "left"
    return model.to(torch.bfloat16).float().to(DEVICE).eval(), processor  # as its checkpoint is stored


# what is reported


def cell(records: Sequence[Record], untouched: Sequence[Record]) -> dict[str, float]:
    """Right answers and answers as the untouched reader's, in percent, and nats."""
    pairs = list(zip(records, untouched, strict=True))
    return {
        "right": 100 * fmean(record.score for record in records),
        "same": 100 * fmean(one.prediction == other.prediction for one, other in pairs),
        "nats": fmean(record.divergence for record in records),
    }


def by_picture(records: Sequence[Record]) -> dict[str, float]:
    """The mean of nats of each picture."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        found[record.cluster].append(record.divergence)
    return {picture: fmean(values) for picture, values in found.items()}


def nearer(first: Sequence[Record], second: Sequence[Record]) -> dict[str, float]:
    """By how many nats the first is farther from the untouched reader, with an interval over pictures."""
    one, other = by_picture(first), by_picture(second)
    gaps = np.array([one[picture] - other[picture] for picture in one])
    low, high = clustered_interval(gaps, list(one))
    p = float(wilcoxon(gaps).pvalue) if gaps.any() else 1.0
    return {"difference": float(gaps.mean()), "low": low / 100, "high": high / 100, "p": p}


def comparisons(found: Answers) -> Iterator[dict[str, Any]]:
    """Every pair of readings of every method, p not yet corrected."""
    for first, second in PAIRS:
        for label, one in found[first].items():
            if label == "none":
                continue
            other = found[second][label]
            scores = ([record.score for record in each] for each in (one, other))
            yield {
                "method": label,
                "first": first,
                "second": second,
                "right": asdict(compare(*scores, [record.cluster for record in one])),
                "nats": nearer(one, other),
            }


def corrected(found: Answers) -> list[dict[str, Any]]:
    """The same, p after Holm's correction over all comparisons of a measure."""
    rows = list(comparisons(found))
    for measure in ("right", "nats"):
        for row, p in zip(rows, holm([row[measure]["p"] for row in rows]), strict=True):
            row[measure]["p"] = p
    return rows


def reported(name: str, state: Path, parts: Path | None = None) -> dict[str, Any]:
    """What was answered, and what differs."""
    if name == AGAIN and parts is None:
        raise MissingPackage("it is asked by --again, on a GPU")
    found = answered(name, state, parts)
    untouched = found["neither"]["none"]
    return {
        **asdict(replace(ASKED[name], questions=len(untouched))),
        "pictures": len(by_picture(untouched)),
        "untouched": cell(untouched, untouched),
        "rows": [
            {"method": label, "reading": reading, **cell(records, untouched)}
            for reading, by_label in found.items()
            for label, records in by_label.items()
            if label != "none"
        ],
        "comparisons": corrected(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--only", help="readers to ask, separated by commas; nothing is reported then")
    parser.add_argument("--again", type=Path, help="ask `real` again, of the parts in this folder")
    given = parser.parse_args()
    given.state.mkdir(parents=True, exist_ok=True)
    if given.again:
        part = {**reported(AGAIN, given.state, given.again), **machine_and_versions()}
        committed = json.loads((RESULTS / "positions.json").read_text())
        (RESULTS / "positions.json").write_text(json.dumps({**committed, AGAIN: part}, indent=2) + "\n")
    elif given.only:
        for name in given.only.split(","):
            answered(name, given.state)
    else:
        found = {name: part_of("positions", name, partial(reported, name, given.state)) for name in ASKED}
        save("positions", found)


if __name__ == "__main__":
    main()
