from __future__ import annotations

from dataclasses import dataclass

import torch

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Dart(FrameByFrame, Selector):
    """DART: a few pivots, and for each of them the tokens that duplicate it least.

    Pivots are the tokens whose keys have the largest L1 norm. One after the other, each takes its share of
    the tokens that are left: those with the lowest cosine to it. The official code
    (https://github.com/ZichenWen1/DART) works at the second layer of the language model, with pivots among
    the words as well; this is the form for visual tokens alone: keys of the vision tower, embeddings behind
    the projector.
    """

    paper = "https://arxiv.org/abs/2502.11494"

    keep: int | float = 1 / 9
    """Visual tokens to keep, pivots included: a count or a share below 1 (1/9 is 64 of 576)."""

    pivots: int = 8
    """Number of pivots (the official code: four among the visual tokens and four among the words)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pivots < 1:
            raise PrumergeError(f"{self}: pivots must be at least 1")

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        pivots = ops.top(tokens.keys.float().norm(p=1, dim=-1), min(self.pivots, count))
        chosen, others = [pivots], count - len(pivots)
        duplication = ops.cosines(tokens.embeddings(), of=pivots)
        taken = ~ops.complement(pivots, len(tokens))
        for number, own in enumerate(duplication.unbind()):
            share = others * (number + 1) // len(pivots) - others * number // len(pivots)
            chosen.append(own.masked_fill(taken, torch.inf).argsort(stable=True)[:share])
            taken = taken.scatter(0, chosen[-1], True)
        return self.selected(tokens, torch.cat(chosen).sort().values)
