from __future__ import annotations

from dataclasses import dataclass

from prumerge import ops
from prumerge.reducer import FrameByFrame
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class FasterVLM(FrameByFrame, Selector):
    """FasterVLM: the patches to which the class token attends most, the same number in each tile or frame.

    Attention is the mean over heads, and the tokens stay in spatial order, as in the official code
    (https://github.com/Theia-4869/FasterVLM).
    """

    paper = "https://arxiv.org/abs/2412.01818v1"
    needs = "class token"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        self.need(tokens.class_key is not None, "a class token", instead="topk")
        return self.selected(tokens, ops.top(tokens.scored_by("writer").attention(), count).sort().values)
