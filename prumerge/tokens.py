"""The two data types everything else speaks: the visual tokens of one image, and what to keep of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class VisualTokens:
    """The visual tokens of ONE image or video as its encoder left them; there is no batch axis.

    `N` patches, `C` feature channels, `D` channels of the scoring layer (all heads side by side), `Q`
    queries: one where the encoder has a class token, `N` where it has none.
    """

    features: Float[Tensor, "N C"]
    """What the language model would read, before the projector where the family allows it."""

    grid: tuple[int, int, int]
    """Frames, rows, columns; their product is N, and tokens are in raster order."""

    keys: Float[Tensor, "N D"]
    """Keys of the scoring layer: the vision layer that reads `features`."""

    queries: Float[Tensor, "Q D"]
    """Queries of the scoring layer whose attention scores the patches: the class token's, or every
    patch's."""

    heads: int
    class_key: Float[Tensor, "D"] | None = None
    """The class token's own key, a column of the softmax; None for encoders without one (SigLIP, Qwen)."""

    class_feature: Float[Tensor, "C"] | None = None
    relevance: Float[Tensor, "N"] | None = None
    """How well each patch matches the prompt, for methods that read the text."""

    sizes: Float[Tensor, "N"] | None = None
    """How many patches each token holds, once some were merged: attention gets the logarithm on its logits
    (proportional attention, ToMe 3)."""

    merged: Merged | None = None
    """Where the vision tower merged patches on its way: what became of the picture's own grid."""

    def __post_init__(self) -> None:
        frames, rows, columns = self.grid
        if frames * rows * columns != len(self.features):
            raise ValueError(f"a grid of {self.grid} does not hold {len(self.features)} visual tokens")
        if self.keys.shape[1] % self.heads:
            raise ValueError(f"{self.heads} heads do not divide keys of width {self.keys.shape[1]}")

    @classmethod
    def from_class_sequence(
        cls,
        features: Float[Tensor, "*one S C"],
        queries: Float[Tensor, "*one S D"],
        keys: Float[Tensor, "*one S D"],
        *,
        heads: int,
        grid: Sequence[int],
        relevance: Float[Tensor, "*one N"] | None = None,
    ) -> VisualTokens:
        """Build one from tensors of S = N + 1 tokens, the class token first; a leading batch axis of one is
        dropped.

        `grid` is (frames, rows, columns) or, for a picture, (rows, columns).
        """
        features, queries, keys = (x.squeeze(0) if x.ndim == 3 else x for x in (features, queries, keys))
        frames, rows, columns = grid if len(grid) == 3 else (1, *grid)
        return cls(
            features=features[1:],
            grid=(frames, rows, columns),
            keys=keys[1:],
            queries=queries[:1],
            heads=heads,
            class_key=keys[0],
            class_feature=features[0],
            relevance=relevance.squeeze(0) if relevance is not None and relevance.ndim == 2 else relevance,
        )

    def __len__(self) -> int:
        return len(self.features)

    def attention(self, *, split_heads: bool = True) -> Float[Tensor, "N"]:
        """Attention that each patch receives, in float32: from the class token, or the mean over all patches.

        `split_heads=True` is the attention the encoder computes, averaged over heads. `False` takes all heads
        as one of width D, scale D^-0.5: what the official PruMerge code does.
        """
        heads = self.heads if split_heads else 1
        query = self.queries.float().unflatten(1, (heads, -1)).transpose(0, 1)  # [heads, Q, D/heads]
        key = self.keys.float().unflatten(1, (heads, -1)).permute(1, 2, 0)  # [heads, D/heads, N]
        logits = query @ key * query.shape[-1] ** -0.5
        if self.class_key is not None:
            to_itself = query @ self.class_key.float().view(heads, -1, 1) * query.shape[-1] ** -0.5
            logits = torch.cat([to_itself, logits], dim=-1)
        if self.sizes is not None:
            logits[..., -len(self) :] += self.sizes.log()
        received = logits.softmax(dim=-1).mean(dim=(0, 1))
        return received[-len(self) :]

    @property
    def places(self) -> int:
        """Placeholders of this picture in the processor's prompt: one for each patch, merged or not."""
        return len(self) if self.merged is None else len(self.merged.source)

    @property
    def picture_grid(self) -> tuple[int, int, int]:
        """Frames, rows, columns of the picture's patches, merged or not."""
        return self.grid if self.merged is None else self.merged.grid

    def whole(self, reduction: Reduction) -> Reduction:
        """A reduction of these tokens as one of the picture's patches."""
        if self.merged is None:
            return reduction
        return reduction.after(self.merged.reduction(len(self)), self.places)

    def reduced(self, reduction: Reduction) -> VisualTokens:
        """What is left, for the next method of a chain: a single row of tokens in the order of `reduction`.

        Keys (and queries, where each patch has one) go through the same matrix as the features; a token's
        size counts the patches in it.
        """
        sizes = self.sizes
        if reduction.weights is not None:
            each = torch.ones_like(reduction.weights[0]) if sizes is None else sizes
            sizes = (reduction.weights != 0).to(each.dtype) @ each
        elif sizes is not None:
            sizes = sizes[reduction.index]
        return replace(
            self,
            features=reduction.apply(self),
            grid=(1, 1, len(reduction)),
            keys=reduction.of(self.keys),
            queries=reduction.of(self.queries) if self.class_key is None else self.queries,
            relevance=None if self.relevance is None else reduction.of(self.relevance[:, None])[:, 0],
            sizes=sizes,
            merged=None,
        )


@dataclass(frozen=True)
class Reduction:
    """What a method decided for one image: reduced = weights @ features, a row for each of the M tokens left.

    Pruning is `weights=None`: each row takes the token at `index` as it is.
    """

    index: Int[Tensor, "M"]
    """The place (0 to N-1) that each token stands for: its position, and where pictures draw it."""

    weights: Float[Tensor, "M N"] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def apply(self, tokens: VisualTokens) -> Float[Tensor, "M C"]:
        """The reduced features, in the dtype of the features."""
        return self.of(tokens.features)

    def of(self, values: Float[Tensor, "N D"]) -> Float[Tensor, "M D"]:
        """Anything that each token has, reduced as the features are."""
        if self.weights is None:
            return values[self.index]
        return (self.weights @ values.to(self.weights.dtype)).to(values.dtype)

    def rows(self, order: Int[Tensor, "M"]) -> Reduction:
        """The same tokens in another order."""
        return Reduction(self.index[order], None if self.weights is None else self.weights[order])

    def medians(self) -> Int[Tensor, "M"]:
        """For each token the median of the places that went into it."""
        if self.weights is None:
            return self.index
        within = (self.weights != 0).cumsum(1)
        return (2 * within >= within[:, -1:]).int().argmax(1)

    def matrix(self, count: int) -> Float[Tensor, "M N"]:
        """The weights, those of plain pruning (one-hot rows) included; `count` is N."""
        if self.weights is not None:
            return self.weights
        rows = torch.zeros(len(self), count, device=self.index.device)
        return rows.scatter_(1, self.index[:, None], 1.0)

    def after(self, first: Reduction, count: int) -> Reduction:
        """Both in one: this reduction of what `first` left of `count` tokens."""
        pruned = self.weights is None and first.weights is None
        return Reduction(first.index[self.index], None if pruned else self.of(first.matrix(count)))


@dataclass(frozen=True)
class Merged:
    """Which of the M tokens that a vision tower left each of a picture's P patches went into (ToMe)."""

    grid: tuple[int, int, int]
    """Frames, rows, columns of the patches."""

    source: Int[Tensor, "P"]
    """The token each patch went into."""

    def reduction(self, count: int) -> Reduction:
        """The same as a matrix: each of the `count` tokens is the mean of its patches, at the first one."""
        rows = torch.arange(count, device=self.source.device)
        belongs = (self.source == rows[:, None]).float()
        return Reduction(belongs.argmax(1), belongs / belongs.sum(1, keepdim=True))
