"""How far a method's next tokens are from the untouched model's, while both have said the same.

The untouched model is listened to while it answers: its likeliest next tokens are kept for each token of its
answers. A method that answers the same question is compared with them token by token, up to and with the
first token that differs: until then both read the same words, and only the picture was shortened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge.generate.watcher import Watcher

LIKELIEST = 32
"""Next tokens that are kept of each place; what is left of the probability counts as one more."""
_LEAST = 1e-6  # probability; less is rounding


def divergences(
    logits: Float[Tensor, "*T V"], ids: Int[Tensor, "*T K"], taught: Float[Tensor, "*T K"]
) -> Float[Tensor, "*T"]:
    """The Kullback-Leibler divergence, in nats, of next tokens from those of another model (`taught`: the
    log-probabilities of its likeliest K, `ids`), at each place.

    Tokens that are not among the likeliest K count as one: exactly 0 where both are the same, and never above
    the divergence over the whole vocabulary.
    """
    ours = logits.float()
    ours = ours.gather(-1, ids) - ours.logsumexp(-1, keepdim=True)
    rest, our_rest = (1 - each.exp().sum(-1).clamp(max=1 - _LEAST) for each in (taught, ours))
    # What a model never says has no logarithm; it counts nothing where the other never says it either.
    each = torch.where(taught.isneginf(), 0, taught.exp() * (taught - ours))
    return each.sum(-1) + rest * (rest.log() - our_rest.log())


def likeliest(logits: Float[Tensor, "*T V"], count: int) -> tuple[Int[Tensor, "*T K"], Float[Tensor, "*T K"]]:
    """The `count` likeliest next tokens at each place, and their log-probabilities."""
    top = logits.float().topk(min(count, logits.shape[-1]))
    return top.indices, top.values - logits.float().logsumexp(-1, keepdim=True)


@dataclass(frozen=True)
class Said:
    """What the untouched model said to a question, and expected at each of its T tokens, the one that ends
    the answer included."""

    text: str
    tokens: Int[Tensor, "T"]
    ids: Int[Tensor, "T K"]
    taught: Float[Tensor, "T K"]


class Listener(Watcher):
    """Keeps the likeliest next tokens as well."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[tuple[Tensor, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._steps.append(likeliest(scores, LIKELIEST))
        return super().__call__(input_ids, scores)

    def heard(self, texts: Sequence[str], tokens: Int[Tensor, "B T"], lengths: Sequence[int]) -> list[Said]:
        """What was said to each question of the batch: its first `lengths` tokens."""
        ids, taught = (torch.stack(each, 1).cpu() for each in zip(*self._steps, strict=True))
        tokens = tokens.cpu()
        return [
            # Copies: a view would keep the whole batch in memory.
            Said(text, *(each[row, :length].clone() for each in (tokens, ids, taught)))
            for row, (text, length) in enumerate(zip(texts, lengths, strict=True))
        ]


class Follower(Watcher):
    """Compares every step with what was said to the same questions as well."""

    def __init__(self, said: Sequence[Said], device: torch.device) -> None:
        super().__init__()
        self._lengths = torch.tensor([len(one.tokens) for one in said])
        self._tokens = _padded([one.tokens for one in said])
        self._ids = _padded([one.ids for one in said]).to(device)
        self._taught = _padded([one.taught for one in said]).to(device)
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self._steps)
        if step < self._tokens.shape[1]:
            self._steps.append(divergences(scores, self._ids[:, step], self._taught[:, step]))
        return super().__call__(input_ids, scores)

    def compared(self, tokens: Int[Tensor, "B T"]) -> list[tuple[float, int]]:
        """For each question the divergence summed over the tokens that are compared, and how many those are;
        `tokens` is what was said now."""
        each = torch.stack(self._steps, 1).cpu()
        steps = each.shape[1]
        same = tokens[:, :steps].cpu() == self._tokens[:, :steps]
        until = torch.cat([same.new_ones(len(same), 1), same.cumprod(1).bool()[:, :-1]], 1)
        counted = until & (torch.arange(steps) < self._lengths[:, None])
        total = torch.where(counted, each, 0).sum(1)
        return list(zip(total.tolist(), counted.sum(1).tolist(), strict=True))


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
