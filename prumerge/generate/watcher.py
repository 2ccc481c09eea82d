"""How sure a model is of what it says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria


class Watcher(LogitsProcessor):
    """Keeps how sure the model is at every step of a greedy `generate`; changes nothing."""

    def __init__(self) -> None:
        self._sure: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = scores.float()
        self._sure.append(logits.amax(-1) - logits.logsumexp(-1))
        return scores

    @property
    def last(self) -> Tensor:
        """The logarithm of how probable the last step's token was, one for each question."""
        return self._sure[-1]

    def probabilities(self, lengths: Sequence[int]) -> list[float]:
        """Of the whole answer to each question of the batch: of its first `lengths` tokens together."""
        sure = torch.stack(self._sure, 1).cpu()
        return [float(row[:length].sum().exp()) for row, length in zip(sure, lengths, strict=True)]


class Doubt(StoppingCriteria):
    """Stops a `generate` for one question as soon as its answer is less probable than `least`: more tokens
    only make it less so."""

    def __init__(self, watcher: Watcher, least: float) -> None:
        self.watcher, self.least = watcher, least

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        sure = torch.stack(self.watcher._sure).sum(0)
        return sure.exp() < self.least
