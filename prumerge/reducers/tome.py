from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.reducer import TowerReducer, shares
from prumerge.reduction import joined
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True, kw_only=True)
class ToMe(TowerReducer):
    """ToMe: between attention and MLP of every vision block, merge the r most similar pairs of tokens.

    The encoder itself gets cheaper. Tokens take turns as set A and set B; each of A is matched to the one of
    B whose key (mean over heads) has the highest cosine, and the r best matches become size-weighted means.
    The class token stays as it is. A second method may follow: tome:r=8+prumerge.
    """

    paper = "https://arxiv.org/abs/2210.09461"
    needs = "keys"

    keep: int | float | None = None
    """Tokens left after the vision tower, in place of r: a count or a share below 1."""

    r: int | str = 8
    """Tokens to merge away in each block: the same in all, or a list such as 16-8-4 (then none)."""

    inflect: float = 0.0
    """Slope of r over the blocks, from -1 (falling from 2 r to 0) to 1 (rising from 0 to 2 r)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None and (self.r, self.inflect) != (8, 0.0):
            raise PrumergeError(f"{self}: give keep or r, not both")
        if not -1 <= self.inflect <= 1 or (isinstance(self.r, str) and self.inflect):
            raise PrumergeError(f"{self}: inflect is a slope from -1 to 1, for an r that is one number")
        ops.listed(self.r)

    def schedule(self, patches: int, blocks: int) -> list[int]:
        """Tokens to merge away in each block; of what is left no more than half at a time."""
        target = self.count(patches) if self.keep is not None else 0
        wanted = self._wanted(blocks)
        left, counts = patches, []
        for block in range(blocks):
            r = wanted[block]
            if target:  # evenly, but for what the later blocks could not halve away
                after = blocks - block - 1
                r = max(math.ceil((left - target) / (after + 1)), left - target * 2**after)
            counts.append(min(r, left // 2))
            left -= counts[-1]
        if target < left and target:
            raise PrumergeError(
                f"{self}: each of the {blocks} blocks can halve the tokens at most, so {left} is the least "
                f"they can leave of {patches}"
            )
        return counts

    def _wanted(self, blocks: int) -> list[int]:
        if isinstance(self.r, str):
            return [*ops.listed(self.r), *[0] * blocks][:blocks]
        first = self.r * (1 - self.inflect)
        step = 2 * (self.r - first) / max(blocks - 1, 1)
        return [int(first + step * block) for block in range(blocks)]

    def match(self, keys: Float[Tensor, "*B S D"], r: int, *, class_token: bool) -> Int[Tensor, "*B S"]:
        """Bipartite soft matching (section 3): the row that each token goes into, of S - r.

        Rows are what is left of set A, then set B, as in the official code.
        """
        unit = normalize(keys.float(), dim=-1)
        similarity = unit[..., ::2, :] @ unit[..., 1::2, :].mT
        if class_token:
            similarity[..., 0, :] = -torch.inf
        best, partner = similarity.max(-1)
        merged, stays = best.argsort(dim=-1, descending=True, stable=True).tensor_split([r], dim=-1)
        if class_token:  # it stays first
            stays = stays.sort(-1).values
        left = stays.shape[-1]
        rows = torch.empty_like(partner)
        rows.scatter_(-1, stays, torch.arange(left, device=rows.device).expand_as(stays))
        rows.scatter_(-1, merged, left + partner.gather(-1, merged))
        row = torch.empty(keys.shape[:-1], dtype=torch.long, device=keys.device)
        row[..., ::2] = rows
        row[..., 1::2] = left + torch.arange(similarity.shape[-1], device=keys.device)
        return row

    def __call__(self, tokens: VisualTokens) -> Reduction:
        """One step of `r`, or with `keep` as many as it takes, on each frame's tokens as they come."""
        frames = tokens.frames()
        if len(frames) == 1:
            return self._merge(tokens)
        sizes = [len(frame) for frame in frames]
        own = [None] * len(frames) if self.keep is None else shares(self.count(len(tokens)), sizes)
        parts = {
            number: replace(self, keep=share)._merge(frame)
            for number, (frame, share) in enumerate(zip(frames, own, strict=True))
            if share != 0
        }
        return joined(parts, sizes)

    def _merge(self, tokens: VisualTokens) -> Reduction:
        class_token = tokens.class_key is not None
        own = tokens.keys[:0] if tokens.class_key is None else tokens.class_key.reshape(1, -1)
        keys = torch.cat([own, tokens.keys])
        keys = keys.float().unflatten(1, (tokens.heads, -1)).mean(1)
        sizes = torch.ones(len(keys), device=keys.device)
        if tokens.sizes is not None:
            sizes[-len(tokens) :] = tokens.sizes
        weights = sizes[-len(tokens) :]
        source = torch.arange(len(keys), device=keys.device)
        steps = 1
        if self.keep is not None:
            steps = max(1, (math.ceil(len(tokens) / self.count(len(tokens))) - 1).bit_length())
        for r in self.schedule(len(tokens), steps):
            row = self.match(keys, r, class_token=class_token)
            keys, sizes = ops.merged(keys, sizes, row, len(keys) - r)
            source = row[source]
        source = source[-len(tokens) :] - int(class_token)
        belongs = ops.members(source, len(keys) - int(class_token))
        means = belongs * weights
        return Reduction(belongs.argmax(1), means / means.sum(1, keepdim=True), source)
