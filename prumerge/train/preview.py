"""What a run would do: its first batch as it is trained, and one step of it, measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import TrainingArguments

from prumerge.train.adapter import count_trained, prepare
from prumerge.train.batches import Batches, trained_text
from prumerge.train.run import Run


@dataclass(frozen=True)
class Shown:
    """One row of the first batch."""

    row: str
    tokens: int
    """Of the prompt with its answers, all visual tokens included."""
    trained: str
    """The text of its labels: answers, and what ends each."""


@dataclass(frozen=True)
class Preview:
    """What a run would do, and what it would take on this machine."""

    rows: int
    held_out: int
    steps: int
    first: list[Shown]
    visual_before: int
    """Visual tokens of the first batch."""
    visual_after: list[int]
    """What is left of them at the smallest and the largest budget."""
    trained_parameters: int
    parameters: int
    seconds_a_step: float
    """Of the first batch with its answers as labels, at the largest budget, forward and backward."""
    seconds: float
    """Of all steps at that pace; asking the untouched model comes on top without labels."""
    saved_mib: float
    """What the forward pass keeps for the backward pass, in MiB."""
    trained_mib: float
    """Parameters that are trained, their gradients and the optimizer's two moments, in MiB."""
    peak_mib: float | None
    """The most that a GPU held, in MiB."""


def preview(run: Run) -> Preview:
    """Measure one step of a run on its first rows; nothing is written, but the model is made ready to train.

    Rows without labels are shown as if the model had answered them with nothing.
    """
    with TemporaryDirectory() as folder:  # Trainer makes one
        return _preview(run, run.arguments(Path(folder)))


def _preview(run: Run, arguments: TrainingArguments) -> Preview:
    model = run.model.to(arguments.device)
    rows = [run.trained_on[place] for place in range(min(run.recipe.batch, len(run.trained_on)))]
    if run.label_free:
        from prumerge.train.teacher import answered

        rows = [answered(row, "") for row in rows]
    batch = Batches(run.processor)(rows)
    texts = trained_text(run.processor, batch["labels"])
    trained = prepare(model, run.recipe.train, **run.lora())
    trainer = run.trainer(trained, arguments, run.trained_on)
    after, before, saved, seconds = [], 0, 0, 0.0
    try:
        for budget in sorted({run.budgets.typical()[0] or 0, run.budgets.typical()[-1] or 0}):
            trainer.fixed = str(budget or "auto")
            _step(trainer, batch)  # a first one is slower
            began = time.perf_counter()
            saved = _step(trainer, batch)
            seconds = time.perf_counter() - began
            assert trainer.attached is not None
            after.append(sum(left for _, left in trainer.attached.tokens))
            before = sum(there for there, _ in trainer.attached.tokens)
    finally:
        trainer.detach()
    count, every = count_trained(trained)
    seconds *= run.recipe.accumulate
    cuda = arguments.device.type == "cuda"
    return Preview(
        rows=len(run.trained_on),
        held_out=len(run.measured_on),
        steps=run.steps,
        first=[
            Shown(row.where, int(mask.sum()), text)
            for row, mask, text in zip(rows, batch["attention_mask"], texts, strict=True)
        ],
        visual_before=before,
        visual_after=after,
        trained_parameters=count,
        parameters=every,
        seconds_a_step=seconds,
        seconds=seconds * run.steps,
        saved_mib=saved / 2**20,
        trained_mib=sum(4 * p.numel() * p.element_size() for p in trained.parameters() if p.requires_grad)
        / 2**20,
        peak_mib=torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
    )


def _step(trainer: Any, batch: dict[str, Any]) -> int:
    """Forward and backward; how many bytes were kept in between."""
    weights = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = {name: value.to(trainer.args.device) for name, value in batch.items()}
    trainer.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.compute_loss(trainer.model, inputs)
        bytes_kept = sum(kept.values())
    loss.backward()
    trainer.model.zero_grad()
    if trainer.args.device.type == "cuda":
        torch.cuda.synchronize()
    return bytes_kept
