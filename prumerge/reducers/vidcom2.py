from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducers._selector import Selector
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class VidCom2(Selector):
    """VidCom2: more tokens for frames that stand out from the video, and in each the ones that stand out.

    On the half of the channels that varies least, a token is compared with the mean of the video and the mean
    of its frame by Gaussians of five widths. A frame's budget is the average one times 1 plus its part of
    a softmax over how little the frames resemble the video, less the mean part; it keeps the tokens that
    resemble both means least. The official code (https://github.com/xuyang-liu16/VidCom2) rounds the budgets
    frame by frame, and the number of tokens with them; here `keep` is met, in one of two ways.
    """

    paper = "https://arxiv.org/abs/2505.14454"
    needs = "frames"
    decides = "together"
    video = True

    keep: int | float = 0.25
    """Visual tokens to keep of all frames together: a count or a share below 1."""

    temperature: float = 0.01
    """Of the softmax over frames: the smaller, the more the most unusual frame gets."""

    budgets: Literal["divided", "rounded"] = "divided"
    """How `keep` is met: divided among the frames without remainder, or rounded for each frame (official
    code), and what is then missing or too much made up by score over all frames (rounded, vLLM)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise PrumergeError(f"{self}: temperature must be above 0")

    def __call__(self, tokens: VisualTokens) -> Reduction:
        frames = tokens.grid[0]
        self.need(frames > 1, "the frames of a video (this is one picture)", instead="divprune")
        count, embeddings = self.count(len(tokens)), tokens.embeddings()
        steady = embeddings.var(dim=0, correction=0).argsort(stable=True)[: max(1, embeddings.shape[1] // 2)]
        directions = normalize(embeddings[:, steady], dim=-1).view(frames, len(tokens) // frames, -1)
        of_video = _resemblance(directions, directions.mean(dim=(0, 1)))
        of_frame = _resemblance(directions, directions.mean(dim=1, keepdim=True))
        unusual = (-of_video.mean(dim=1) / self.temperature).softmax(dim=0)
        parts = 1 + unusual - unusual.mean()
        if self.budgets == "rounded":
            budgets = (count / frames * parts).round().long()
        else:
            budgets = ops.allot(count, parts)
        frame = torch.arange(len(tokens), device=embeddings.device) * frames // len(tokens)
        return self.selected(
            tokens, ops.best_of_each(-(of_video + of_frame).flatten(), frame, budgets, count)
        )


def _resemblance(tokens: Float[Tensor, "F S C"], centre: Tensor) -> Float[Tensor, "F S"]:
    """The sum of Gaussians of several widths around a centre."""
    distance = (tokens - centre).square().sum(dim=-1)
    return torch.stack([torch.exp(-distance / (2 * 2.0**power)) for power in range(-3, 2)]).sum(dim=0)
