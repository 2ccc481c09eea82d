"""Transformers' Trainer with a method attached, and another budget each step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from prumerge.attachment.attach import Attachment, attach
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import modality_of
from prumerge.spec import make, with_keep
from prumerge.train.batches import IGNORED, Batches
from prumerge.train.budgets import Budgets
from prumerge.train.lessons import Example, divergence
from prumerge.train.rows import Row


class ReducedTrainer(Trainer):
    """Trains a model that reads few visual tokens.

    The method is attached as long as `train` or `evaluate` runs. Each step keeps as many tokens as its budget
    says, which depends on the seed and the number of the step alone. The loss is the mean cross-entropy over
    all answer tokens of a step, in whichever processes and accumulated batches they are; `distil` is the
    share of the divergence from what the untouched model says, for examples that come with lessons.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        rows: Sequence[Row | Example],
        batches: Batches,
        reducer: str = "prumerge_plus",
        budgets: Budgets | None = None,
        options: Options | None = None,
        *,
        distil: float = 0.0,
        projector: Sequence[str] = (),
        projector_rate: float | None = None,
        lengths: Callable[[], Sequence[int]] | None = None,
        held_out: Sequence[Row | Example] | None = None,
        **more: Any,
    ) -> None:
        """`projector` names the modules that learn at `projector_rate`; rows that
        are alike in `lengths`, one for each, come in one batch. Other arguments are those of Trainer."""
        args.remove_unused_columns = False
        super().__init__(
            model=model, args=args, train_dataset=rows, eval_dataset=held_out, data_collator=batches, **more
        )
        self.spec, self.budgets, self.options = reducer, budgets or Budgets(), options
        self.distil, self.lengths = distil, lengths
        self.projector, self.projector_rate = tuple(projector), projector_rate
        self.model_accepts_loss_kwargs = True  # `compute_loss` divides by the answer tokens of a whole step
        self.loss_is_scaled_for_ga = True
        self.attached: Attachment | None = None
        self.fixed: str | None = None  # a budget in place of those of steps, while it is measured
        self._seen: Counter[str] = Counter()
        self._divergence = torch.zeros((), device=args.device)
        self._since = time.perf_counter()

    # as long as it works, the method is attached

    def train(self, *given: Any, **more: Any) -> Any:
        self._since = time.perf_counter()
        try:
            return super().train(*given, **more)
        finally:
            self.detach()

    def evaluate(self, *given: Any, metric_key_prefix: str = "eval", **more: Any) -> dict[str, float]:
        """The loss on the held-out rows at each typical budget, and with all visual tokens (`none`)."""
        found: dict[str, float] = {}
        training, began = self.attached is not None, time.perf_counter()
        try:
            for budget in (*self.budgets.typical(), "none"):
                self.fixed = str(budget or "auto")
                prefix = f"{metric_key_prefix}_{self.fixed}"
                found[f"{prefix}_loss"] = super().evaluate(*given, metric_key_prefix=prefix, **more)[
                    f"{prefix}_loss"
                ]
        finally:
            self.fixed = None
            if not training:
                self.detach()
        self._since += time.perf_counter() - began
        self.log(dict(found))
        return found

    def _spec(self) -> str:
        """The method at the budget of this step, or at the fixed one."""
        budget = self.fixed or str(self.budgets.at(self.args.seed, self.state.global_step) or "auto")
        return {"none": "none", "auto": self.spec}.get(budget) or with_keep(self.spec, budget)

    def _attach(self) -> Attachment:
        spec = self._spec()
        if self.attached is None:
            # Only now: Accelerate has put its own forward in place of the model's.
            self.attached = attach(self.model, spec, self.options)
        elif str(self.attached.reducer) != str(make(spec)):
            self.attached.reducer = spec
        return self.attached

    def detach(self) -> None:
        """Give the model its own `forward` back; `train` and `evaluate` do so at their end."""
        if self.attached is not None:
            self.attached.detach(quiet=True)
            self.attached = None

    # a step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        attached = self._attach()
        inputs = dict(inputs)
        lesson = inputs.pop("taught_ids", None), inputs.pop("taught", None)
        with self.accelerator.autocast():
            output = model(**inputs, use_cache=False)
        assert attached.labels is not None
        answers = attached.labels[:, 1:] != IGNORED
        count = answers.sum()
        total = count if num_items_in_batch is None else num_items_in_batch
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            total = total / self.accelerator.num_processes  # gradients are averaged over processes
        summed = output.loss * count
        if lesson[0] is not None and self.distil:
            logits = output.logits[:, -attached.labels.shape[1] :][:, :-1][answers.to(output.logits.device)]
            apart = divergence(logits, *lesson)
            summed = (1 - self.distil) * summed + self.distil * apart if self.distil < 1 else apart
            self._divergence += apart.detach() / total
        loss = summed / total
        self._note(inputs, attached)
        return (loss, output) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        """The loss alone: logits are as long as the shorter prompts, labels are not."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            return self.compute_loss(model, inputs).detach().mean(), None, None

    # what is logged

    def _note(self, inputs: dict[str, Any], attached: Attachment) -> None:
        if self.fixed is not None:
            return
        pictures = attached.tokens if modality_of(inputs) else []  # else they are of an earlier batch
        self._seen["pictures"] += len(pictures)
        self._seen["visual"] += sum(after for _, after in pictures)
        self._seen["tokens"] += inputs["input_ids"].numel() - sum(
            before - after for before, after in pictures
        )

    def log(self, logs: dict[str, float], *given: Any, **more: Any) -> None:
        """Also the divergence, visual tokens a picture, and tokens a second that the language model read."""
        if self.fixed is not None:  # all budgets are logged together
            return
        if "loss" in logs:
            seconds = time.perf_counter() - self._since
            logs["tokens_per_second"] = round(self._seen["tokens"] / max(seconds, 1e-9), 1)
            if self._seen["pictures"]:
                logs["visual_tokens"] = round(self._seen["visual"] / self._seen["pictures"], 2)
            if self.distil:
                logs["kl"] = float(self._divergence) / max(self.args.logging_steps, 1)
            self._seen.clear()
            self._divergence.zero_()
            self._since = time.perf_counter()
        super().log(logs, *given, **more)

    # rates, and the order of rows

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """With the projector's parameters at a rate of their own."""
        optimizer = super().create_optimizer(model)
        if self.projector_rate is None:
            return optimizer
        of_projector = {
            id(weight)
            for name, weight in (self.model if model is None else model).named_parameters()
            if any(f"{part}." in f"{name}." for part in self.projector)
        }
        groups = []
        for group in optimizer.param_groups:
            own = [weight for weight in group["params"] if id(weight) in of_projector]
            rest = [weight for weight in group["params"] if id(weight) not in of_projector]
            groups += [{**group, "params": rest}] if rest else []
            groups += [{**group, "params": own, "lr": self.projector_rate}] if own else []
        optimizer.param_groups[:] = groups
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.lengths is None:
            return super()._get_train_sampler(train_dataset)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return ByLength(size, list(self.lengths()), self.args.seed, lambda: int(self.state.epoch or 0))


class ByLength(LengthGroupedSampler):
    """Rows of like lengths together, in an order that the seed and the number of the epoch alone decide: a
    run that was stopped in whichever epoch goes on with the rows that would have come."""

    def __init__(self, batch: int, lengths: list[int], seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(batch, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch())
        return super().__iter__()
