"""A run of training: a folder that says what it is, checkpoints that it goes on from, and what comes out."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from prumerge import __version__
from prumerge.errors import MissingPackage, PrumergeError
from prumerge.evaluate.plan import compares_frames
from prumerge.loading.fingerprint import fingerprint
from prumerge.models import device_of
from prumerge.pipeline.options import Options
from prumerge.spec import make, with_keep
from prumerge.train.adapter import prepare, projector_names, save
from prumerge.train.batches import Batches
from prumerge.train.budgets import Budgets
from prumerge.train.folder import claim, last_checkpoint, on_disk, write_whole
from prumerge.train.lessons import Example
from prumerge.train.recipe import Recipe
from prumerge.train.rows import Row, Rows
from prumerge.train.split import divided
from prumerge.train.teacher import teach
from prumerge.train.trainer import ReducedTrainer

Track = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is in all."""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    folder: Path
    model: nn.Module
    """The trained model; where adapters were merged the plain one."""
    steps: int
    finished: bool
    """False where it was stopped: the same call goes on there."""
    log: list[dict[str, float]]
    """What was logged on the way, with its step."""


class Run:
    """One run: `Run(...).train()`; `preview` says what it would do."""

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        rows: Rows,
        reducer: str = "prumerge_plus",
        *,
        output: str | os.PathLike[str],
        budgets: str | None = None,
        options: Options | None = None,
        label_free: bool = False,
        held_out: float = 0,
        recipe: Recipe | None = None,
        save_every: int | None = None,
        workers: int = 0,
        report: Sequence[str] = (),
        merge: bool = True,
        use_cpu: bool = False,
        name: str | None = None,
        track: Track = lambda what, done, total: None,
    ) -> None:
        """`held_out` is a share of the rows below 1, or how many, that are measured on instead of trained. A
        GPU is used where there is one, but with `use_cpu`.

        Raises PrumergeError for a method or budget that is none, and for a method that compares the frames of
        clips where rows show pictures.
        """
        self.model, self.processor, self.reducer = model, processor, reducer
        self.folder, self.budgets = Path(output), Budgets.read(budgets)
        self.options, self.label_free = options or Options(), label_free
        self.recipe, self.track = recipe or Recipe(), track
        self.save_every, self.workers, self.merge = save_every, workers, merge
        self.use_cpu = use_cpu or not torch.cuda.is_available()
        self.name = name or str(getattr(model, "name_or_path", ""))
        self.report = tuple(report)
        check(reducer, budgets, self.report)
        self.trained_on, self.measured_on = divided(rows, held_out, questions=label_free)
        if compares_frames(make(reducer)):
            self.options = _of_clips(reducer, self.options, [*self.trained_on, *self.measured_on])
        self.settings = self._settings(rows, held_out)
        self.steps = self._steps()

    def _settings(self, rows: Rows, held_out: float) -> dict[str, Any]:
        """All that the result depends on."""
        return {
            "model": self.name,
            "weights": fingerprint(self.model),
            "data": rows.fingerprint,
            "rows": len(rows),
            "held_out": held_out,
            "reducer": str(make(self.reducer)),
            "budgets": str(self.budgets),
            "options": {key: str(value) for key, value in self.options.changed().items()},
            "label_free": self.label_free,
            "processes": processes(),
            **asdict(self.recipe),
        }

    def _steps(self) -> int:
        if self.recipe.steps is not None:
            return self.recipe.steps
        together = self.recipe.batch * processes()
        batches = math.ceil(len(self.trained_on) / together)
        return max(1, math.ceil(batches / self.recipe.accumulate * self.recipe.epochs))

    # the run itself

    def train(self) -> Outcome:
        """Train from where the run was, and write `adapter` and `model` into its folder."""
        with on_disk(self.folder):
            if this_process() == 0:
                claim(self.folder, self.settings)
            arguments = self.arguments()
            self.model.to(arguments.device)
            examples, measured = self._examples(arguments)
            set_seed(self.recipe.seed)
            trained = prepare(self.model, self.recipe.train, **self.lora())
            trainer = self.trainer(trained, arguments, examples, measured)
            whole = last_checkpoint(self.folder)
            with _stopping(trainer):
                trainer.train(resume_from_checkpoint=None if whole is None else str(whole))
            finished = trainer.state.global_step >= self.steps
            model: nn.Module = trained
            if finished:
                model = self._save(trainer)
        return Outcome(self.folder, model, trainer.state.global_step, finished, trainer.state.log_history)

    def trainer(
        self, model: nn.Module, arguments: TrainingArguments, examples: Any, measured: Any = None
    ) -> ReducedTrainer:
        """The trainer of this run."""
        trainer = ReducedTrainer(
            model,
            arguments,
            examples,
            Batches(self.processor),
            self.reducer,
            self.budgets,
            self.options,
            distil=1.0 if self.label_free else self.recipe.distil,
            projector=projector_names(self.model),
            projector_rate=self.recipe.projector_rate,
            lengths=lambda: [self._length(row) for row in self.trained_on],
            held_out=measured,
            callbacks=[_Progress(self)],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _length(self, row: Row) -> int:
        """Words and visual tokens of a row, roughly: rows that are alike come in one batch."""
        budget = self.budgets.typical()[-1] or 64
        return row.words + budget * len(row.media)

    def _examples(self, arguments: TrainingArguments) -> tuple[Any, Any]:
        """Rows as they are, or with what the untouched model says to them."""
        if not self.label_free and not self.recipe.distil:
            return self.trained_on, self.measured_on
        found = []
        for name, rows in (("teacher", self.trained_on), ("teacher-held-out", self.measured_on)):
            lessons: Sequence[Example] = teach(
                self.model,
                Batches(self.processor),
                rows,
                self.folder / name,
                batch=self.recipe.batch,
                autocast=lambda: torch.autocast(
                    device_of(self.model).type, torch.bfloat16, enabled=self.recipe.bf16
                ),
                track=lambda done, total: self.track("asking the untouched model", done, total),
                share=(arguments.process_index, processes()),
            )
            found.append(lessons)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        return found[0], found[1]

    def lora(self) -> dict[str, Any]:
        """What `prepare` is told of the recipe."""
        return {"rank": self.recipe.rank, "alpha": self.recipe.alpha, "dropout": self.recipe.dropout}

    def arguments(self, folder: Path | None = None) -> TrainingArguments:
        """Trainer's own; `folder` is where it writes, by default that of the run."""
        recipe, known = self.recipe, {field.name for field in fields(TrainingArguments)}
        often = self.save_every or max(1, min(500, self.steps // 10))
        again = (
            "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
        )
        arguments = TrainingArguments(
            output_dir=str(folder or self.folder / "checkpoints"),
            per_device_train_batch_size=recipe.batch,
            per_device_eval_batch_size=recipe.batch,
            gradient_accumulation_steps=recipe.accumulate,
            max_steps=self.steps,
            learning_rate=recipe.rate,
            lr_scheduler_type="cosine",
            warmup_steps=math.ceil(recipe.warmup * self.steps),
            weight_decay=0.0,
            bf16=recipe.bf16,
            logging_steps=max(1, min(10, self.steps // 20)),
            save_steps=often,
            save_total_limit=2,
            eval_strategy="steps" if self.measured_on else "no",
            eval_steps=often,
            dataloader_num_workers=self.workers,
            remove_unused_columns=False,
            prediction_loss_only=True,
            report_to=list(self.report) or "none",
            seed=recipe.seed,
            disable_tqdm=True,
            use_cpu=self.use_cpu,
            ddp_find_unused_parameters=processes() > 1 or None,  # a batch may be words alone
            **{again: recipe.checkpointing},
            **({f"{again}_kwargs": {"use_reentrant": False}} if recipe.checkpointing else {}),
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are several processes
        return arguments

    def _save(self, trainer: ReducedTrainer) -> nn.Module:
        """Write what was trained, and what it is; of weights that are sharded among processes (FSDP, ZeRO)
        Trainer writes the adapter, or the model where all was trained, and nothing is merged."""
        model: nn.Module = trainer.accelerator.unwrap_model(trainer.model)
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        if sharded:
            part = "adapter" if self.recipe.train == "lora" else "model"
            trainer.save_model(str(self.folder / part))  # all processes take part
        if not trainer.is_world_process_zero():
            return model
        if not sharded:
            model = save(model, self.processor, self.folder, merge=self.merge)
        about = {**self.settings, "prumerge": __version__, "torch": torch.__version__}
        for part in ("adapter", "model"):
            if (self.folder / part).is_dir():
                write_whole(self.folder / part / "prumerge.json", json.dumps(about, indent=1) + "\n")
        return model.eval()


def train(
    model: nn.Module, processor: Any, rows: Any, reducer: str = "prumerge_plus", **more: Any
) -> Outcome:
    """Train a model on reduced visual tokens; what a stopped call left behind is gone on from.

    `rows` is what `Rows.read` takes (a file, a folder of pictures without labels, a sequence of dicts), or
    rows. Other arguments are those of `Run`; the fields of `Recipe` are given by name, or as `recipe`.
    """
    images = more.pop("images", None)
    own = {field.name: more.pop(field.name) for field in fields(Recipe) if field.name in more}
    recipe = more.pop("recipe", None) or Recipe(**own)
    if not isinstance(rows, Rows):
        rows = Rows.read(rows, images, answers=not more.get("label_free"))
    return Run(model, processor, rows, reducer, recipe=recipe, **more).train()


def _of_clips(reducer: str, options: Options, rows: Sequence[Row]) -> Options:
    """The options of a method to which a clip is one video."""
    other = next((row for row in rows if row.media and not row.is_clip), None)
    if other is not None:
        raise PrumergeError(
            f"{reducer} compares the frames of a clip, and {other.where} shows a picture; train on clips, or "
            "take another method"
        )
    return options.but(clip=True)


def check(reducer: str, budgets: str | None = None, report: Sequence[str] = ()) -> None:
    """Raise PrumergeError for a method that cannot be trained with at these budgets, and for a place that
    nothing is reported to; before a model is loaded."""
    method, found = make(reducer), Budgets.read(budgets)
    if found.counts and method.parts[-1].keep != type(method.parts[-1]).keep:
        raise PrumergeError(f"{reducer} has a budget of its own; give it by --budgets alone")
    for budget in found.typical():
        if budget is not None:
            make(with_keep(reducer, str(budget)))
    for name in report:
        if name not in ("tensorboard", "wandb"):
            raise PrumergeError(f"reports go to tensorboard or wandb, not {name!r}")
        if find_spec(name) is None and not (name == "tensorboard" and find_spec("tensorboardX")):
            raise MissingPackage(f"this needs {name}; install it with: pip install {name}")


def this_process() -> int:
    """The number of this process among those that torchrun or accelerate started."""
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def _stopping(trainer: ReducedTrainer) -> Iterator[None]:
    """Ctrl-C or a kind kill ends the step, saves, and stops; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        trainer.control.should_training_stop = trainer.control.should_save = True
        for number in before:
            signal.signal(number, before[number])

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, before[number])


class _Progress(TrainerCallback):
    """Tells how far it is, and keeps the log on disk."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.run.track("training", state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.run.track("training", state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            lines = "".join(json.dumps(entry) + "\n" for entry in state.log_history)
            write_whole(self.run.folder / "log.jsonl", lines)
