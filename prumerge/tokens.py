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
    queries: one for each class token, or `N` where the encoder has none. Frames of a video, or tiles of a
    large picture, are encoded one by one: tokens come frame by frame, each with its class token if there are
    any.
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
    class_key: Float[Tensor, "*frames D"] | None = None
    """The class token's own key, a column of the softmax; None for encoders without one (SigLIP, Qwen)."""

    class_feature: Float[Tensor, "*frames C"] | None = None
    relevance: Float[Tensor, "N"] | None = None
    """How well each patch matches the prompt, for methods that read the text."""

    tiles: tuple[tuple[int, int], ...] = ()
    """Rows and columns of each tile of a picture that was encoded in tiles; `grid` is then (1, 1, N)."""

    placed: Int[Tensor, "N"] | None = None
    """The placeholder of its picture that each token stands for, on the CPU; None: they are in order, with
    nothing between. Where they are given, tokens are read in this order, whatever a method's order is."""

    separators: Separators | None = None
    """What the family puts between the tokens."""

    def __post_init__(self) -> None:
        frames, rows, columns = self.grid
        if frames * rows * columns != len(self.features):
            raise ValueError(f"a grid of {self.grid} does not hold {len(self.features)} visual tokens")
        if self.keys.shape[1] % self.heads:
            raise ValueError(f"{self.heads} heads do not divide keys of width {self.keys.shape[1]}")
        if self.tiles and sum(rows * columns for rows, columns in self.tiles) != len(self.features):
            raise ValueError(f"tiles of {self.tiles} do not hold {len(self.features)} visual tokens")

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

    @classmethod
    def from_frames(cls, frames: Sequence[VisualTokens]) -> VisualTokens:
        """The frames of a clip that were encoded as pictures, as one video; ValueError if they differ in
        size or hold more than patches."""
        one = frames[0]
        if any(frame.grid != one.grid or frame.tiles or frame.separators for frame in frames):
            raise ValueError("the frames of a clip must be of one size, and in one piece each")
        if len(frames) == 1:
            return one

        def together(parts: list[Tensor | None]) -> Tensor | None:
            found = [part for part in parts if part is not None]
            return torch.stack(found) if found else None

        relevance = [frame.relevance for frame in frames if frame.relevance is not None]
        return cls(
            features=torch.cat([frame.features for frame in frames]),
            grid=(len(frames) * one.grid[0], *one.grid[1:]),
            keys=torch.cat([frame.keys for frame in frames]),
            queries=torch.cat([frame.queries for frame in frames]),
            heads=one.heads,
            class_key=together([frame.class_key for frame in frames]),
            class_feature=together([frame.class_feature for frame in frames]),
            relevance=torch.cat(relevance) if relevance else None,
            placed=torch.arange(sum(map(len, frames))),
        )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def placeholders(self) -> int:
        """Placeholders of this picture in the processor's prompt."""
        return len(self) + (0 if self.separators is None else len(self.separators.at))

    def parts(self) -> list[VisualTokens]:
        """Each frame or tile as a picture of its own, in order; of a picture in one piece, itself."""
        frames, rows, columns = self.grid
        grids = self.tiles or [(rows, columns)] * frames
        if len(grids) == 1:
            return [self]
        sizes = [height * width for height, width in grids]
        class_tokens = [
            [None] * len(sizes) if one is None or one.ndim == 1 else one.unbind()
            for one in (self.class_key, self.class_feature)
        ]
        asking = {1: [self.queries] * len(sizes), len(sizes): self.queries.split(1)}
        queries = asking.get(len(self.queries)) or self.queries.split(sizes)
        relevance = [None] * len(sizes) if self.relevance is None else self.relevance.split(sizes)
        shares = zip(
            self.features.split(sizes), self.keys.split(sizes), queries, *class_tokens, relevance, strict=True
        )
        return [
            replace(
                self,
                grid=(1, *grid),
                features=features,
                keys=keys,
                queries=query,
                class_key=class_key,
                class_feature=class_feature,
                relevance=relevant,
                tiles=(),
                placed=None,
                separators=None,
            )
            for grid, (features, keys, query, class_key, class_feature, relevant) in zip(
                grids, shares, strict=True
            )
        ]

    def attention(self, *, split_heads: bool = True) -> Float[Tensor, "N"]:
        """Attention that each patch receives, in float32: from the class token, or the mean over all patches.

        `split_heads=True` is the attention the encoder computes, averaged over heads. `False` takes all heads
        as one of width D, scale D^-0.5: what the official PruMerge code does.
        """
        one_for_all = self.class_key is not None and self.class_key.ndim == 1
        if not one_for_all and len(parts := self.parts()) > 1:  # attention in the encoder never crosses them
            return torch.cat([part.attention(split_heads=split_heads) for part in parts])
        heads = self.heads if split_heads else 1
        query = self.queries.float().unflatten(1, (heads, -1)).transpose(0, 1)  # [heads, Q, D/heads]
        key = self.keys.float().unflatten(1, (heads, -1)).permute(1, 2, 0)  # [heads, D/heads, N]
        logits = query @ key * query.shape[-1] ** -0.5
        if self.class_key is not None:
            to_itself = query @ self.class_key.float().reshape(heads, -1, 1) * query.shape[-1] ** -0.5
            logits = torch.cat([to_itself, logits], dim=-1)
        received = logits.softmax(dim=-1).mean(dim=(0, 1))
        return received[-len(self) :]


@dataclass(frozen=True)
class Separators:
    """What a family puts between the visual tokens of a picture: newlines after the rows of a large one, or
    the class token of each frame."""

    at: Int[Tensor, "L"]
    """The placeholder of each, among those of the picture; on the CPU, as is `of`."""

    features: Float[Tensor, "L C"]
    """What they are, like `VisualTokens.features`, where the model is."""

    of: Int[Tensor, "N"]
    """For each token the separator of its row or frame; -1 where it has none."""


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
        if self.weights is None:
            return tokens.features[self.index]
        return (self.weights @ tokens.features.to(self.weights.dtype)).to(tokens.features.dtype)
