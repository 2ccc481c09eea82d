"""Data that nobody here made: the embedded model learns easy-VQA, and methods answer its test split.

    python benchmarks/easy_vqa_split.py --state DIR

Written down before anything was looked at:

- The embedded model is trained further on easy-VQA's train split with all 576 visual tokens and no method, so
  that none is favoured: 400 steps of 8 rows, LoRA (rank 32, alpha 64, rate 1e-3; projector 2e-4), seed 0.
- All 9,673 questions of the test split are asked, untouched and at 36 tokens by prumerge, prumerge_plus,
  spatial, sequential, random, pool and scope.
- Compared: every method with none, and prumerge with every other method, paired by question, 95 % intervals
  over pictures, p by McNemar's exact test after Holm's correction. Beside accuracy: the share of answers that
  are the untouched model's, and the divergence of the next tokens.

All of it can be stopped and goes on; state is under DIR, what is committed is `results/easy_vqa.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measure import save

import prumerge
from prumerge.train import Recipe, Rows, Run

METHODS = "prumerge,prumerge_plus,spatial,sequential,pool,scope"
RECIPE = Recipe(steps=400, batch=8, rank=32, alpha=64, rate=1e-3, projector_rate=2e-4)


def rows(state: Path) -> Rows:
    """The train split, as `prumerge train` reads what users have."""
    import easy_vqa

    file = state / "train.json"
    if not file.exists():
        paths = easy_vqa.get_train_image_paths()
        found = [
            {"id": str(number), "image": paths[picture], "question": question, "answer": answer}
            for number, (question, answer, picture) in enumerate(
                zip(*easy_vqa.get_train_questions(), strict=True)
            )
        ]
        file.with_suffix(".new").write_text(json.dumps(found))
        file.with_suffix(".new").replace(file)
    return Rows.read(file)


def trained(state: Path) -> Path:
    """The folder of the model that learned it."""
    folder = state / "run"
    if not (folder / "model" / "config.json").exists():
        model, processor = prumerge.load("tiny")
        run = Run(
            model, processor, rows(state), "none", output=folder, recipe=RECIPE, save_every=50, name="tiny",
            track=_told,
        )  # fmt: skip
        if not run.train().finished:
            raise SystemExit(130)
    return folder / "model"


def _told(what: str, done: int, total: int) -> None:
    if done % 20 == 0:
        print(f"{what} {done} of {total}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, required=True)
    state: Path = parser.parse_args().state
    state.mkdir(parents=True, exist_ok=True)
    model, answers = trained(state), state / "answers"
    command = [Path(sys.executable).parent / "prumerge", "evaluate", "--task", "easy_vqa", "--model", model]
    command += ["--reducer", METHODS, "--keep", "36", "-o", answers]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    recipe = {name: getattr(RECIPE, name) for name in ("steps", "batch", "rank", "rate", "projector_rate")}
    save("easy_vqa", {"recipe": recipe, **json.loads((answers / "summary.json").read_text())})


if __name__ == "__main__":
    main()
