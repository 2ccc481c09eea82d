from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize, pad

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import FrameByFrame
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class VisionZip(FrameByFrame):
    """VisionZip: dominant tokens by class attention, and contextual ones that merge all the rest.

    The class token itself comes first, as in the official code (https://github.com/dvlab-research/VisionZip),
    then the dominant patches in spatial order. Of the rest, evenly spaced targets are added to the mean of
    the tokens whose keys (averaged over heads) are most similar to theirs. Where the tower has no class token
    its row goes to one more dominant patch, and attention is the mean over patches.
    """

    paper = "https://arxiv.org/abs/2412.04467"
    needs = "attention"

    keep: int | float = 1 / 9
    """Visual tokens to keep, class token and contextual ones included: a count or a share below 1."""

    contextual: int | None = None
    """How many of them are merged from the rest; none: as in the paper 5 of 32 (10 of 64, 30 of 192). More
    than fit into keep are cut to what fits, with a warning."""

    class_token: bool | None = None
    """Whether the class token is kept: on, off, or none: where there is one (official code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contextual is not None and self.contextual < 0:
            raise PrumergeError(f"{self}: contextual must not be negative")

    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        has_one = tokens.class_feature is not None
        if self.class_token:
            self.need(has_one, "a class token", instead="visionzip:class_token=off")
        class_rows = int(has_one if self.class_token is None else self.class_token)
        contextual = round(count * 5 / 32) if self.contextual is None else self.contextual
        if contextual > count - class_rows:
            warnings.warn(f"{self}: {count} tokens hold no {contextual} contextual ones", stacklevel=2)
            contextual = count - class_rows
        tokens = tokens.scored_by("writer")
        attention, available = tokens.attention(), len(tokens)

        dominant = ops.top(attention, count - contextual - class_rows).sort().values
        rest = ops.places(ops.complement(dominant, available), available - len(dominant))
        targets = rest[:: max(1, len(rest) // max(1, contextual))][:contextual]
        index = torch.cat([dominant, targets])
        left_over = ops.complement(index, available)
        weights = ops.one_hot(index, available)
        if contextual:
            keys = normalize(tokens.keys.float().unflatten(1, (tokens.heads, -1)).mean(dim=1), dim=-1)
            belongs = ops.members((keys @ keys[targets].T).argmax(dim=1), contextual) * left_over
            means = belongs / belongs.sum(dim=1, keepdim=True).clamp_min(1)
            weights = weights + pad(means, (0, 0, len(dominant), 0))
        if class_rows:  # its row stands where the strongest patch was that is only merged
            place = attention.masked_fill(~left_over, -1).argmax(dim=0, keepdim=True)
            index = torch.cat([place, index])
            own = torch.arange(available + 1, device=weights.device) == available  # its column is the last
            weights = torch.cat([own[None].to(weights), pad(weights, (0, 1))])
        return Reduction(index, weights)
