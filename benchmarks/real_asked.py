"""How `real_llava.py` asks: every method about the same pictures, by what the model expects at each token of
an answer, many rows at once; and what is reported of it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measure import RESULTS
from real_rows import Asked, choices, easy, single
from torch import Tensor
from torch.utils.data import DataLoader

from prumerge.bench.record import record
from prumerge.catalogue import built_in, entry
from prumerge.errors import PrumergeError
from prumerge.evaluate.plan import Job, at
from prumerge.evaluate.statistics import clustered_interval, compare, holm
from prumerge.layers.pruning import pruning
from prumerge.models import device_of
from prumerge.pipeline.encode import shown
from prumerge.pipeline.options import DEFAULT, Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.tokens import VisualTokens
from prumerge.train.batches import IGNORED, Batches

COUNTS, PICTURES, EACH, ROWS, RIVAL = (36, 144, 16, 64), range(0, 1000, 5), 3, 128, "spatial"
FIRST = ("prumerge", "prumerge_plus", RIVAL, "random", "pool", "topk", "sequential", "medoids", "divprune")
"""Asked first, in case the time is short."""


def methods() -> list[str]:
    """Every method that the plan names."""
    found = [entry(name) for name in built_in() if name != "none"]
    place = "before the language model"
    names = [one.name for one in found if one.place == place and "frames" not in one.needs]
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def jobs(sample: VisualTokens, counts: Sequence[int]) -> Iterator[Job]:
    """`none`, then every method at every count, those that read words last; one that cannot hand over so few
    is left out."""
    yield Job("none", "none")
    for reads in (False, True):
        for count in counts:
            for name in methods():
                if ("text" in entry(name).needs) == reads:
                    with suppress(PrumergeError):
                        yield at(name, count, sample)


# answers by what is expected at their tokens


def _autocast(device: torch.device) -> Any:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


@torch.no_grad()
def expected(model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """For each row of a batch with labels: whether every token of its answer is the likeliest one, and the
    mean log-probability of these tokens."""
    inputs = dict(inputs)
    labels = inputs.pop("labels")
    first = int((labels != IGNORED).any(0).nonzero()[0])
    count = labels.shape[1] - first + 1
    with _autocast(labels.device):
        logits = model(**inputs, logits_to_keep=count, use_cache=False).logits
    following = F.pad(labels, (0, 1), value=IGNORED)[:, 1:][:, -count:]
    asked = following != IGNORED
    rows, scores = asked.nonzero()[:, 0], logits[asked].float()
    wanted = following[asked]
    sums = torch.zeros(2, len(labels), device=labels.device)
    sums[0].index_add_(0, rows, (scores.argmax(-1) == wanted).float())
    sums[1].index_add_(0, rows, -F.cross_entropy(scores, wanted, reduction="none"))
    lengths = asked.sum(1)
    return (sums[0] == lengths).cpu(), (sums[1] / lengths).cpu()


def exact(model: Any, batches: Sequence[Mapping[str, Any]]) -> float:
    """The share of right answers with all visual tokens."""
    device = device_of(model)
    found = [expected(model, {name: value.to(device) for name, value in one.items()})[0] for one in batches]
    return float(torch.cat(found).float().mean())


class Sheet:
    """Rows about pictures that are encoded once, in batches that every method gets: with their answers, and
    without, for methods that read the words."""

    def __init__(self, model: Any, processor: Any, rows: Sequence[Asked], workers: int = 0) -> None:
        """`workers` are processes that open pictures."""
        read = [one.row() for one in rows]
        made = DataLoader(read, ROWS, collate_fn=Batches(processor), num_workers=workers)
        self.model, self.rows, self.prompts = model, rows, list[tuple[Prompt, Prompt]]()
        self.pictures: dict[str, VisualTokens] = {}
        end = model.config.text_config.eos_token_id
        for some, batch in zip(_parts(rows), made, strict=True):
            inputs = {name: value.to(device_of(model)) for name, value in batch.items()}
            new = {one.name: place for place, one in enumerate(some) if one.name not in self.pictures}
            if new:
                few = {name: value[list(new.values())] for name, value in inputs.items()}
                encoded = Pipeline("none").encode(Prompt.read(model, few))
                self.pictures |= zip(new, encoded, strict=True)
            inputs["pixel_values"] = inputs["pixel_values"][:, :, :1, :1].clone()  # looked at no more
            question = inputs["input_ids"].masked_fill(inputs["labels"] != IGNORED, end)
            asked = Prompt.read(model, {**inputs, "input_ids": question})
            self.prompts.append((Prompt.read(model, inputs), asked))

    def tokens(self, some: Sequence[Asked], question: Prompt) -> list[VisualTokens]:
        """The picture of each row, with the words of its question."""
        return shown(question, [self.pictures[one.name] for one in some], Options())

    def answered(self, spec: str, options: Options = DEFAULT) -> tuple[list[bool], list[float], float]:
        """Of each row whether its answer is right, and how likely; visual tokens of a row, on average."""
        pipeline, found, kept = Pipeline(spec, options), [], 0
        reads = any("text" in part.needs for part in pipeline.method.parts)
        for some, (prompt, question) in zip(_parts(self.rows), self.prompts, strict=True):
            keys = [(one.name, one.turns[0][0] if reads else "") for one in some]
            places = {key: place for place, key in enumerate(keys)}  # a picture is decided once
            tokens = self.tokens(some, question)
            decided = pipeline.decide([tokens[place] for place in places.values()])
            by_key = dict(zip(places, decided, strict=True))
            own = [by_key[key] for key in keys]
            kept += sum(map(len, own))
            with _autocast(device_of(self.model)):
                embeddings = pipeline.project(prompt, own)
            shorter = pipeline.splice(prompt, own, embeddings)
            columns = pipeline.columns(prompt, shorter, own)
            with pruning(self.model, pipeline.placed.layers, *columns):
                found.append(expected(self.model, shorter))
        right, likely = (torch.cat(each).tolist() for each in zip(*found, strict=True))
        return right, likely, kept / len(self.rows)


def _parts(rows: Sequence[Asked]) -> list[Sequence[Asked]]:
    return [rows[first : first + ROWS] for first in range(0, len(rows), ROWS)]


@torch.inference_mode()
def ask(
    model: Any, processor: Any, stamps: Path, log: Path, more: Callable[[], bool],
    counts: Sequence[int] = COUNTS, pictures: Sequence[int] = PICTURES, held: int | None = None,
    workers: int = 0,
) -> Iterator[str]:  # fmt: skip
    """Ask every method that is not in the log yet as long as there is `more` time; gives the label of each,
    once its line is written."""
    known = {line["label"] for line in lines(log)}
    asked = Sheet(model, processor, single("test", pictures, EACH), workers)
    of_four = [one for four in choices(stamps, held) for one in four]
    named = Sheet(model, processor, of_four, workers)
    sample = asked.tokens(asked.rows[:ROWS], asked.prompts[0][1])[0]
    for job in jobs(sample, counts):
        if job.label in known:
            continue
        if not more():
            return
        right, _, tokens = asked.answered(job.spec)
        _, likely, _ = named.answered(job.spec)
        line = {
            "label": job.label,
            "spec": job.spec,
            "tokens": tokens,
            "right": [int(one) for one in right],
            "likely": [round(one, 4) for one in likely],
        }
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        yield job.label


def lines(log: Path) -> list[dict[str, Any]]:
    """What was answered, a label each."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


# the report


def blind() -> list[int]:
    """Whether each question's most frequent answer of the train split is right: what needs no look."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for _, turns in easy("train").values():
        for question, answer in turns:
            seen[question][answer] += 1
    asked = [one.turns[0] for one in single("test", PICTURES, EACH)]
    return [int(seen[question].most_common(1)[0][0] == answer) for question, answer in asked]


def chosen(likely: Sequence[float]) -> np.ndarray:
    """Of each four rows whether the first is the likeliest."""
    return (np.array(likely).reshape(-1, 4).argmax(1) == 0).astype(float)


def report(log: Path, train_log: Path) -> None:
    """Write `results/real_llava.json`."""
    held, clusters = lines(log), [one.name for one in single("test", PICTURES, EACH)]
    by_label = {one["label"]: one for one in held}
    whole, guess = by_label["none"], blind()
    pictures = [str(number) for number in range(len(whole["likely"]) // 4)]
    rows = [_row(one, by_label, clusters, pictures) for one in held]
    gaps = [row["against_grid"] for row in rows if row["against_grid"]]
    for gap, p in zip(gaps, holm([gap["p"] for gap in gaps]), strict=True):
        gap["p"] = p
    kinds = [_kind(one.turns[0][1]) for one in single("test", PICTURES, EACH)]
    right, kinds_at = np.array(whole["right"], float), np.array(kinds)
    result = {
        "questions": len(clusters),
        "stamps": len(pictures),
        "blind": 100 * fmean(guess),
        "sees": asdict(compare(whole["right"], guess, clusters)),
        "sees_stamps": _interval(chosen(whole["likely"]) - 0.25, pictures),
        "kinds": {
            kind: {"questions": kinds.count(kind), "right": 100 * float(right[kinds_at == kind].mean())}
            for kind in dict.fromkeys(kinds)
        },
        "methods": rows,
        "training": [line for line in lines(train_log) if "asked" not in line],
    }
    (RESULTS / "real_llava.json").write_text(json.dumps({**result, **record()}, indent=1) + "\n")


def _kind(answer: str) -> str:
    shapes = ("circle", "rectangle", "triangle")
    return "yes or no" if answer in ("yes", "no") else "shape" if answer in shapes else "colour"


def _row(
    one: dict[str, Any], by_label: dict[str, dict[str, Any]], clusters: list[str], pictures: list[str]
) -> dict[str, Any]:
    none, name, count = by_label["none"], *one["label"].partition("@")[::2]
    grid = by_label.get(f"{RIVAL}@{count}") if count and name != RIVAL else None
    own = chosen(one["likely"])

    def against(other: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if other is None else asdict(compare(one["right"], other["right"], clusters))

    def stamps_against(other: dict[str, Any] | None) -> dict[str, float] | None:
        return None if other is None else _interval(own - chosen(other["likely"]), pictures)

    rest = none if one is not none else None
    return {
        "method": one["label"],
        "tokens": one["tokens"],
        "right": 100 * fmean(one["right"]),
        "against_none": against(rest),
        "against_grid": against(grid),
        "chosen": 100 * float(own.mean()),
        "nats": -fmean(one["likely"][::4]),
        "stamps_against_none": stamps_against(rest),
        "stamps_against_grid": stamps_against(grid),
    }


def _interval(values: np.ndarray, clusters: Sequence[str]) -> dict[str, float]:
    low, high = clustered_interval(values, clusters)
    return {"difference": 100 * float(values.mean()), "low": low, "high": high}
