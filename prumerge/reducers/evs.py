from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from prumerge import ops
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class EVS(Selector):
    """Efficient Video Sampling: the first frame, and of the others what differs most from the frame before.

    A token is compared with the one at the same place in the previous frame, by the cosine of embeddings
    behind the projector; of the whole video the least similar stay (vLLM's `--video-pruning-rate`). The first
    frame stays whole, so a smaller `keep` is raised to it, a count with a warning.
    """

    paper = "https://arxiv.org/abs/2510.14624"
    needs = "frames"
    decides = "together"
    video = True

    keep: int | float = 0.25
    """Visual tokens to keep of all frames together: a count or a share below 1."""

    def __call__(self, tokens: VisualTokens) -> Reduction:
        frames, rows, columns = tokens.grid
        self.need(frames > 1, "the frames of a video (this is one picture)", instead="divprune")
        count = self.count(len(tokens))
        if isinstance(self.keep, int) and count < rows * columns:
            warnings.warn(f"{self}: the whole first frame stays, {rows * columns} tokens", stacklevel=2)
        count = max(count, rows * columns)
        directions = normalize(tokens.embeddings(), dim=-1).view(frames, rows * columns, -1)
        change = 1 - (directions[1:] * directions[:-1]).sum(dim=-1)
        first = change.new_full((1, rows * columns), torch.inf)
        return self.selected(tokens, ops.top(torch.cat([first, change]).flatten(), count).sort().values)
