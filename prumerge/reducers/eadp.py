from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens

_TEMPERATURE = 100.0  # of a word's distribution over patches
_SHARPNESS = 0.01  # of the weights of words
_SIDE = math.exp(-0.5)  # of a Gaussian of sigma 1, one patch from its middle


@dataclass(frozen=True, kw_only=True)
class EADP(FrameByFrame, Selector):
    """EADP: the tokens that stand best for what the question's most telling words point at.

    A word points at patches by its (negative) cosine with each, l_i; the entropy H of softmax_i(100 l_i) is
    low where it points at few. Of the words the fifth with the lowest entropies counts, weighted by
    softmax(-H / 0.01); their mean and the cosine with the mean of all words, half each, are the relevance r,
    min-max normalised, smoothed over the grid by a 3 x 3 Gaussian, to the power beta. Then, greedily, the
    token that adds most to sum_j r_j max_i (1 + cos(v_i, v_j)) / 2 over the chosen i, v being embeddings
    behind the projector (facility location).

    Words and patches are compared by the language model's embeddings, as the official code does for Qwen-VL;
    for LLaVA it takes CLIP's two towers, of which `relevance=prumerge.clip_relevance(...)` is the part of the
    whole question: r is then that, and no word counts alone. It divides a budget among tiles by their
    relevance; here each tile or frame has its even share, and a scale of its own. Written from a description
    of the code (https://github.com/SJTU-DeepVisionLab/EADP), which has no licence.
    """

    paper = "https://arxiv.org/abs/2607.02484"
    needs = "text"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    alpha: float = 0.5
    """Weight of the whole question against its most telling words, 0 to 1."""

    words: float = 0.2
    """The share of the words that counts, those with the lowest entropies; at least one."""

    beta: float = 1.0
    """The power of relevance (the paper has 1 and 2)."""

    inverted: bool = True
    """On: a patch is the more relevant the less it resembles the words (official code, in both spaces); off:
    the more it does. Of a relevance that is given nothing is inverted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "words"):
            if not 0 <= getattr(self, name) <= 1:
                raise PrumergeError(f"{self}: {name} is a share from 0 to 1")
        if self.beta < 0:
            raise PrumergeError(f"{self}: beta must not be negative")

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        directions = normalize(tokens.embeddings(), dim=-1)
        relevance = tokens.relevance
        if relevance is None:
            relevance = self._matches(directions, self.text(tokens, instead="divprune"))
        weight = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min() + 1e-6)
        weight = _smoothed(weight.float().view(tokens.grid[1:])).flatten() ** self.beta
        # (1 + cos) / 2 is the product of directions with one channel more.
        shifted = torch.cat([directions, torch.ones_like(directions[:, :1])], dim=1) / math.sqrt(2)
        added = ops.facility_location(shifted[None], weight[None], count)[0]
        return self.selected(tokens, ops.top(added, count).sort().values)

    def _matches(self, patches: Float[Tensor, "N H"], words: Float[Tensor, "T H"]) -> Float[Tensor, "N"]:
        sign, there = -1 if self.inverted else 1, words.any(dim=1)
        whole = sign * (patches @ normalize(words.sum(dim=0), dim=0))
        alike = sign * (patches @ normalize(words, dim=1).T)
        logarithms = (_TEMPERATURE * alike).log_softmax(dim=0)
        entropy = -(logarithms.exp() * logarithms).sum(dim=0).masked_fill(~there, -torch.inf)
        counted = (self.words * there.sum() + 1e-6).floor().clamp_min(1)
        telling = ops.ranks(-entropy) < counted
        weights = (-entropy / _SHARPNESS).masked_fill(~telling, -torch.inf).softmax(dim=0)
        return self.alpha * whole + (1 - self.alpha) * (alike @ weights)


def _smoothed(values: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """By a Gaussian over each patch and its eight neighbours, mirrored at the edges; a single row or column,
    as a method before this one leaves it, stays as it is."""
    if min(values.shape) < 2:
        return values
    for _ in range(2):
        before, after = torch.cat([values[1:2], values[:-1]]), torch.cat([values[1:], values[-2:-1]])
        values = ((values + _SIDE * (before + after)) / (1 + 2 * _SIDE)).T
    return values
