"""The two data types everything else speaks: the visual tokens of one image, and what to keep of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Layer: TypeAlias = Literal["first", "writer"]
Scores: TypeAlias = tuple[Float[Tensor, "Q D"], Float[Tensor, "N D"], Float[Tensor, "*frames D"] | None]
"""Queries, keys and the class token's key of one layer."""


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
    """Keys of the scoring layer: the vision layer that reads `features` (see `scored_by` for others)."""

    queries: Float[Tensor, "Q D"]
    """Queries of the scoring layer whose attention scores the patches: the class token's, or every
    patch's."""

    heads: int
    class_key: Float[Tensor, "*frames D"] | None = None
    """The class token's own key, a column of the softmax; None for encoders without one (SigLIP, Qwen)."""

    class_feature: Float[Tensor, "*frames C"] | None = None
    relevance: Float[Tensor, "N"] | None = None
    """How well each patch matches the prompt, 0 to 1 (see `ops.relevance`); None: from `embed` and `text`."""

    elsewhere: Callable[[Layer], Scores] | None = None
    """Queries, keys and class key of another layer, computed when a method asks (`scored_by`)."""

    embed: Callable[[Tensor], Tensor] | None = None
    """Features [M, C] to what the language model reads [M, H]: the projector; None: they are that already."""

    text: Callable[[], Float[Tensor, "T H"]] | None = None
    """The language model's embeddings of the words around the picture, looked up when a method asks."""

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
        apart = len(self.tiles) or frames
        if self.class_key is not None and self.class_key.ndim == 2 and len(self.class_key) != apart:
            raise ValueError(f"{len(self.class_key)} class tokens do not fit {apart} frames")

    @classmethod
    def from_class_sequence(
        cls,
        features: Float[Tensor, "*frames S C"],
        queries: Float[Tensor, "*frames S D"],
        keys: Float[Tensor, "*frames S D"],
        *,
        heads: int,
        grid: Sequence[int],
        relevance: Float[Tensor, "*one N"] | None = None,
    ) -> VisualTokens:
        """Build one from tensors of S = 1 + patches tokens, the class token first.

        A leading axis of one (a batch of one) is dropped; a longer one holds frames with a class token each.
        `grid` is (frames, rows, columns) or, for a picture, (rows, columns).
        """
        features, queries, keys = (x.squeeze(0) if x.ndim == 3 else x for x in (features, queries, keys))
        frames, rows, columns = grid if len(grid) == 3 else (1, *grid)
        return cls(
            features=features[..., 1:, :].flatten(0, -2),
            grid=(frames, rows, columns),
            keys=keys[..., 1:, :].flatten(0, -2),
            queries=queries[..., :1, :].flatten(0, -2),
            heads=heads,
            class_key=keys[..., 0, :],
            class_feature=features[..., 0, :],
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

        def together(parts: Sequence[Tensor | None]) -> Tensor | None:
            found = [part for part in parts if part is not None]
            return torch.stack(found) if found else None

        def elsewhere(layer: Layer) -> Scores:
            others = [frame.scored_by(layer) for frame in frames]
            queries, keys = (
                torch.cat([getattr(one, name) for one in others]) for name in ("queries", "keys")
            )
            return queries, keys, together([one.class_key for one in others])

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
            elsewhere=elsewhere if one.elsewhere else None,
            placed=torch.arange(sum(map(len, frames))),
        )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def placeholders(self) -> int:
        """Placeholders of this picture in the processor's prompt."""
        return len(self) + (0 if self.separators is None else len(self.separators.at))

    def attention(self, *, split_heads: bool = True) -> Float[Tensor, "N"]:
        """Attention that each patch receives, in float32: from the class token, or the mean over all patches.

        `split_heads=True` is the attention the encoder computes, averaged over heads. `False` takes all heads
        as one of width D, scale D^-0.5: what the official PruMerge code does.
        """
        if self.tiles:  # of different sizes
            return torch.cat([tile.attention(split_heads=split_heads) for tile in self.frames()])
        heads = self.heads if split_heads else 1
        frames = self._attending_apart
        width = self.keys.shape[1] // heads
        query = self.queries.float().reshape(frames, -1, heads, width).transpose(1, 2)
        key = self.keys.float().reshape(frames, -1, heads, width).permute(0, 2, 3, 1)
        scale = width**-0.5
        logits = query @ key * scale  # [frames, heads, queries of a frame, patches of a frame]
        if self.class_key is not None:
            to_itself = query @ self.class_key.float().reshape(frames, heads, width, 1) * scale
            logits = torch.cat([to_itself, logits], dim=-1)
        received = logits.softmax(dim=-1).mean(dim=(1, 2))
        return received[:, -(len(self) // frames) :].flatten()

    @property
    def _attending_apart(self) -> int:
        """In how many parts the encoder attended: frame by frame, but for one class token over all."""
        if self.class_key is None:
            return self.grid[0]
        return len(self.class_key) if self.class_key.ndim == 2 else 1

    def scored_by(self, layer: Layer) -> VisualTokens:
        """The same patches with queries and keys of another layer: the vision tower's `first`, or the
        `writer` of the features, whose attention most papers take; of the scoring layer where the encoder
        gave no other.
        """
        if self.elsewhere is None:
            return self
        queries, keys, class_key = self.elsewhere(layer)
        return replace(self, queries=queries, keys=keys, class_key=class_key, elsewhere=None)

    @torch.no_grad()
    def embeddings(self) -> Float[Tensor, "N H"]:
        """The patches as the language model would read them without reduction, to compare them; float32."""
        return (self.features if self.embed is None else self.embed(self.features)).float()

    def frames(self) -> list[VisualTokens]:
        """Each frame, or each tile, as a picture of its own; of a picture in one piece, itself."""
        count, rows, columns = self.grid
        grids = self.tiles or ((rows, columns),) * count
        if len(grids) == 1:
            return [self]
        sizes = [height * width for height, width in grids]

        def own(class_token: Tensor | None) -> Sequence[Tensor | None]:
            if class_token is None or class_token.ndim == 1:
                return [class_token] * len(sizes)
            return class_token.unbind()

        def elsewhere(number: int, layer: Layer) -> Scores:
            frame = self.scored_by(layer).frames()[number]
            return frame.queries, frame.keys, frame.class_key

        if self.class_key is None:
            queries = self.queries.split(sizes)
        else:
            queries = [self.queries] * len(sizes) if len(self.queries) == 1 else self.queries.split(1)
        relevance = [None] * len(sizes) if self.relevance is None else self.relevance.split(sizes)
        shares = zip(
            grids,
            self.features.split(sizes),
            self.keys.split(sizes),
            queries,
            own(self.class_key),
            own(self.class_feature),
            relevance,
            strict=True,
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
                elsewhere=partial(elsewhere, number) if self.elsewhere else None,
                tiles=(),
                placed=None,
                separators=None,
            )
            for number, (grid, features, keys, query, class_key, class_feature, relevant) in enumerate(shares)
        ]


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

    weights: Float[Tensor, "M columns"] | None = None
    """N columns, one for each patch; of methods that keep the class token one more at the end, for it (in a
    video one for each frame)."""

    def __len__(self) -> int:
        return len(self.index)

    def apply(self, tokens: VisualTokens) -> Float[Tensor, "M C"]:
        """The reduced features, in the dtype of the features."""
        if self.weights is None:
            return tokens.features[self.index]
        features = tokens.features
        class_columns = self.weights.shape[1] - len(tokens)
        if class_columns and tokens.class_feature is not None:
            features = torch.cat([features, tokens.class_feature.expand(class_columns, -1)])
        return (self.weights @ features.to(self.weights.dtype)).to(features.dtype)
