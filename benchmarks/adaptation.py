"""Does adaptation to few visual tokens help a reader that only ever saw all of them?

    python benchmarks/adaptation.py --state DIR [--model tiny:full] [--seeds 3] [--steps 600]

Written down before anything was looked at (and cut before that, on 2026-11-26, from 2,000 steps on 4,000
scenes and 504 questions, to what two cores do in three hours):

- The reader is `tiny:full`, the embedded model whose language stages saw all 576 visual tokens of every scene
  and nothing else; its vision tower is the shipped one. `--model tiny` is a control that saw subsets.
- Adapted with `prumerge` at budgets drawn from 16-144, 600 steps of 8 rows, seeds 0, 1 and 2, on 1,200
  scenes that no model here was trained on, four questions each: LoRA (rank 16, alpha 32, 1e-3; projector
  2e-4) with labels; the same without labels; the projector alone (1e-3) with labels.
- Asked: 168 questions of each of the six mini-benchmarks, at 16, 36, 64 and 144 tokens by prumerge and at
  576, and easy-VQA's test split (another picture generator; the questions whose words and forms the model
  knows) at the same counts.
- Better means: more questions right than the untouched model at the same count, over all six benchmarks
  together, with a 95 % interval over pictures (answers of the three seeds averaged for each question) that
  excludes 0. What 576 tokens lose is reported beside it. Agreement with the untouched model at 576 tokens is
  reported as well, and decides nothing.

All of it can be stopped and goes on; state is under DIR, what is committed is `results/adaptation.json`.
`--so-far` trains and asks nothing, and reports the runs that are finished, saying how many of each setting.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from measure import save
from PIL import Image

import prumerge
from prumerge.evaluate.answering import Asker
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Job, Plan
from prumerge.evaluate.run import ask, sample
from prumerge.evaluate.scoring import vqa
from prumerge.evaluate.statistics import compare
from prumerge.loading.fingerprint import fingerprint
from prumerge.loading.prompts import prepare_batch
from prumerge.pipeline.options import Options
from prumerge.tiny.questions import questions
from prumerge.tiny.scenes import scene
from prumerge.train import Recipe, Rows, Run
from prumerge.train.folder import claim
from prumerge.train.quick import FIRST

SCENES, EACH, COUNTS, ASKED = 1200, 4, (16, 36, 64, 144), 168
LORA = {"rank": 16, "alpha": 32, "rate": 1e-3, "projector_rate": 2e-4}
SETTINGS: dict[str, dict[str, Any]] = {
    "labels": LORA,
    "label-free": LORA,
    "projector": {"train": "projector", "projector_rate": 1e-3},
}
KNOWN = ("is there a circle?", "is there a triangle?", "what color is the", "what is the color of the")


def rows(state: Path) -> Rows:
    """The scenes as a user would have them: pictures in a folder, and a file of questions and answers."""
    folder = state / "data"
    file = folder / "rows.json"
    if not file.exists():
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        found = []
        for seed in range(FIRST, FIRST + SCENES):
            drawn = scene(seed)
            drawn.image.save(folder / "pictures" / f"{seed}.png", compress_level=1)
            for asked in questions(drawn, 0, EACH):
                row = {"image": f"pictures/{seed}.png", "question": asked.text, "answer": asked.answer}
                found.append({"id": f"{seed}-{asked.family}", **row})
        file.with_suffix(".new").write_text(json.dumps(found))
        file.with_suffix(".new").replace(file)
    return Rows.read(file)


def trained(name: str, state: Path, model: str, setting: str, seed: int, steps: int) -> Path:
    """The folder of a model that was adapted in this setting."""
    folder = state / "runs" / f"{setting}-{seed}"
    if not (folder / "model" / "prumerge.json").exists():
        loaded, processor = prumerge.load(model)
        recipe = Recipe(steps=steps, batch=8, seed=seed, **SETTINGS[setting])
        label_free = setting == "label-free"
        run = Run(
            loaded, processor, rows(state), "prumerge", output=folder, budgets="16-144", recipe=recipe,
            label_free=label_free, save_every=100, name=name, track=_printed(f"{setting}-{seed}"),
        )  # fmt: skip
        claim(folder, run.settings)
        if label_free and not (folder / "teacher").exists():  # the same for all seeds
            (state / "teacher").mkdir(exist_ok=True)
            (folder / "teacher").symlink_to((state / "teacher").resolve())
        outcome = run.train()
        if not outcome.finished:
            raise SystemExit(130)
    return folder / "model"


def _printed(name: str) -> Any:
    def track(what: str, done: int, total: int) -> None:
        if done % 100 == 0:
            print(f"{name}: {what} {done} of {total}", flush=True)

    return track


def answered(name: str, state: Path, model: str) -> dict[str, dict[str, tuple[float, str, str]]]:
    """Score, answer and picture of each question, by label."""
    loaded, processor = prumerge.load(model)
    plan = Plan.read("prumerge", ",".join(map(str, COUNTS)), "all", ASKED)
    asker = Asker(loaded, processor, Options())
    jobs = [job for job in plan.fixed(sample(asker, plan.showings)) if not job.label.startswith("random")]
    log = Log(state / "answers" / f"{name}.jsonl", plan.settings(name, loaded))
    print(f"{name}: asking", flush=True)
    ask(asker, jobs, plan.showings, log, lambda done: None)
    found: dict[str, dict[str, tuple[float, str, str]]] = {job.label: {} for job in jobs}
    for record in log.records:
        found[record.method][" ".join(record.place)] = (record.score, record.prediction, record.cluster)
    for job in jobs:
        found[f"easy-VQA {job.label}"] = easy(name, state, loaded, processor, job)
    return found


def easy(name: str, state: Path, model: Any, processor: Any, job: Job) -> dict[str, tuple[float, str, str]]:
    """The same of easy-VQA's test questions in forms that the model knows."""
    file = state / "answers" / f"{name}-easy-{job.label}.json"
    if not file.exists():
        found = {}
        asked = list(known_questions())
        for first in range(0, len(asked), 16):
            batch = asked[first : first + 16]
            pictures = [[Image.open(path).convert("RGB").resize((336, 336), 3)] for path, *_ in batch]
            inputs = prepare_batch(processor, pictures, [question for _, question, _, _ in batch])
            with torch.no_grad():
                short = prumerge.reduce(model, inputs, job.spec)
                new = model.generate(**short, max_new_tokens=4, do_sample=False)
            for one, (_, question, gold, picture) in zip(new, batch, strict=True):
                said = processor.decode(one[short["input_ids"].shape[1] :], skip_special_tokens=True).strip()
                found[f"{picture} {question}"] = (vqa(said, [gold]), said, picture)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found))
    return {key: tuple(value) for key, value in json.loads(file.read_text()).items()}


def known_questions() -> Iterator[tuple[str, str, str, str]]:
    """Picture file, question, answer and picture of what the embedded model has words for."""
    import easy_vqa

    files = easy_vqa.get_test_image_paths()
    words = set(prumerge.load("tiny")[1].tokenizer.get_vocab())
    for question, gold, picture in zip(*easy_vqa.get_test_questions(), strict=True):
        asked = question.lower().replace("color", "colour")
        forms = question.lower().startswith(KNOWN) and "shape" not in asked
        if forms and {*asked.rstrip("?").split(), gold} <= words:
            yield files[picture], asked, gold, str(picture)


def report(
    state: Path, before: dict[str, dict[str, tuple[float, str, str]]], after: dict[str, list[dict]]
) -> dict[str, Any]:
    """Right answers, the paired difference to the untouched model at the same count, and agreement."""
    result: dict[str, Any] = {}
    for label, untouched in before.items():
        whole = before["easy-VQA none" if label.startswith("easy") else "none"]
        keys = list(untouched)
        base = [untouched[key][0] for key in keys]
        row: dict[str, Any] = {
            "questions": len(keys),
            "untouched": 100 * fmean(base),
            "untouched_agrees": _agreement(untouched, whole, keys),
        }
        for setting, runs in after.items():
            each = [fmean(run[label][key][0] for run in runs) for key in keys]
            found = compare(each, base, [untouched[key][2] for key in keys])
            row[setting] = {
                "right": 100 * fmean(each),
                "by_seed": [100 * fmean(run[label][key][0] for key in keys) for run in runs],
                "difference": found.difference,
                "low": found.low,
                "high": found.high,
                "agrees": fmean(_agreement(run[label], whole, keys) for run in runs),
            }
        result[label] = row
    return result


def _agreement(some: dict, whole: dict, keys: Sequence[str]) -> float:
    return 100 * fmean(some[key][1] == whole[key][1] for key in keys)


def finished(name: str, state: Path) -> bool:
    """Whether all was asked: the last of the files is there."""
    return (state / "answers" / f"{name}-easy-prumerge@{COUNTS[-1]}.json").exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--model", default="tiny:full")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--so-far", action="store_true")
    options = parser.parse_args()
    state: Path = options.state
    state.mkdir(parents=True, exist_ok=True)
    before = answered("untouched", state, options.model)
    after: dict[str, list[dict]] = {setting: [] for setting in SETTINGS}
    for seed in range(options.seeds):
        for setting in SETTINGS:
            if options.so_far and not finished(f"{setting}-{seed}", state):
                continue
            folder = trained(options.model, state, options.model, setting, seed, options.steps)
            after[setting].append(answered(f"{setting}-{seed}", state, str(folder)))
    loaded, _ = prumerge.load(options.model)
    save(
        "adaptation",
        {
            "model": options.model,
            "weights": fingerprint(loaded),
            "steps": options.steps,
            "seeds": {setting: len(runs) for setting, runs in after.items()},
            "planned_seeds": options.seeds,
            "scenes": SCENES,
            "counts": report(state, before, after),
        },
    )


if __name__ == "__main__":
    main()
