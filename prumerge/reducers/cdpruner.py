from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class CDPruner(FrameByFrame):
    """CDPruner: tokens that are diverse given the question, by a determinantal point process.

    The kernel is the cosine of two tokens' embeddings behind the projector, weighted by how well both match
    the text; greedy maximum-a-posteriori inference adds the token with the largest gain in log-determinant.
    The paper's relevance is that of CLIP's two towers, `relevance=prumerge.clip_relevance(...)`; where none
    is given, the cosine with the language model's embeddings of the words. Official code:
    https://github.com/Theia-4869/CDPruner.
    """

    paper = "https://arxiv.org/abs/2506.10967"
    needs = "text"

    keep: int | float = 1 / 9
    """Visual tokens to keep: a count or a share below 1 (1/9 is 64 of 576)."""

    theta: float | None = None
    """Weight of relevance against diversity, 0 to below 1: r enters as exp(r theta / (2 - 2 theta));
    none: as r itself (official code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.theta is not None and not 0 <= self.theta < 1:
            raise PrumergeError(f"{self}: theta must be at least 0 and below 1")

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        relevance = self.relevance(tokens, instead="divprune")
        if self.theta is not None:
            relevance = torch.exp(self.theta / (2 - 2 * self.theta) * relevance)
        kernel = relevance[:, None] * ops.cosines(tokens.embeddings()) * relevance
        return Reduction(_greedy_map(kernel, count).sort().values)


def _greedy_map(kernel: Float[Tensor, "N N"], count: int) -> Int[Tensor, "count"]:
    """The subset that maximises the kernel's determinant, greedily (Chen et al., arXiv 1709.05135)."""
    gain = kernel.diagonal().clone()  # what each token would add to the determinant, as a factor
    nothing = torch.finfo(gain.dtype).eps * gain.amax() + torch.finfo(gain.dtype).tiny
    components = kernel.new_zeros(count, len(kernel))  # rows of the Cholesky factor of what is chosen
    chosen: list[Tensor] = []
    for step in range(count):
        best = gain.argmax(dim=0, keepdim=True)
        chosen.append(best)
        own, earlier = gain.index_select(0, best), components[:step]
        residual = (kernel.index_select(0, best) - earlier.index_select(1, best).T @ earlier)[0]
        # Beyond the kernel's rank nothing is gained but rounding errors.
        component = torch.where(own > nothing, residual / own.clamp_min(nothing).sqrt(), 0)
        components[step] = component
        gain = (gain - component**2).index_fill(0, best, -torch.inf)
    return torch.cat(chosen)
