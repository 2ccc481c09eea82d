"""The visual tokens of one image: what every method reads, and what a model family makes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.reduction import Merged, Reduction
from prumerge.scores import CLASS, TOKEN, Layer, Scores

__all__ = ["Merged", "Reduction", "Separators", "VisualTokens"]


@dataclass(frozen=True, kw_only=True)
class VisualTokens(Scores):
    """The visual tokens of ONE image or video as its encoder left them; there is no batch axis.

    `N` patches, `C` feature channels, and the scores of the vision layer that reads the features (see
    `scored_by` for others). Frames of a video, or tiles of a large picture, are encoded one by one: tokens
    come frame by frame, each with its class token if there are any.
    """

    features: Float[Tensor, "N C"] = field(metadata=TOKEN)
    """What the language model would read, before the projector where the family allows it."""

    grid: tuple[int, int, int]
    """Frames, rows, columns; their product is N, and tokens are in raster order."""

    class_feature: Float[Tensor, "*frames C"] | None = field(default=None, metadata=CLASS)
    """The class token's own feature; None where there is none, or none of the same kind."""

    relevance: Float[Tensor, "N"] | None = field(default=None, metadata=TOKEN)
    """How well each patch matches the prompt, 0 to 1 (see `ops.relevance`); None: from `embed` and `text`."""

    sizes: Float[Tensor, "N"] | None = field(default=None, metadata=TOKEN)
    """How many patches each token holds, once some were merged (`Reduction.sizes`)."""

    elsewhere: Callable[[Layer], Scores | tuple[Tensor, Tensor, Tensor | None]] | None = None
    """Scores (or queries, keys and class key) of another layer, computed when a method asks (`scored_by`)."""

    embed: Callable[[Tensor], Tensor] | None = None
    """Features [M, C] to what the language model reads [M, H]: the projector; None: they are that already."""

    text: Callable[[], Float[Tensor, "T H"]] | None = None
    """The language model's embeddings of the words around the picture, looked up when a method asks."""

    merged: Merged | None = None
    """Where the vision tower merged patches on its way: what became of the picture's own grid."""

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
        queries: Float[Tensor, "*frames Q D"],
        keys: Float[Tensor, "*frames S D"],
        *,
        heads: int,
        grid: Sequence[int],
        relevance: Float[Tensor, "*one N"] | None = None,
    ) -> VisualTokens:
        """Build one from tensors of S = 1 + patches tokens, the class token first; its query is enough.

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
        """The frames of a clip that were encoded as pictures of one prompt, as one video; ValueError if they
        differ in size or hold more than patches."""
        one = frames[0]
        if any(frame.grid != one.grid or frame.tiles or frame.separators for frame in frames):
            raise ValueError("the frames of a clip must be of one size, and in one piece each")
        if len(frames) == 1:
            return one

        def elsewhere(layer: Layer) -> Scores:
            others = [frame.scored_by(layer) for frame in frames]
            return Scores(heads=one.heads, **Scores.joined(others))

        merged = [frame.merged for frame in frames if frame.merged is not None]
        if merged:  # a token stands where its first patch does
            starts = enumerate(zip(merged, frames, strict=True))
            firsts = [own.reduction(len(frame)).index.cpu() + n * frame.patches for n, (own, frame) in starts]
            placed = torch.cat(firsts)
        else:
            placed = torch.arange(sum(map(len, frames)))
        return replace(
            one,
            **cls.joined(frames),
            grid=(len(frames) * one.grid[0], *one.grid[1:]),
            elsewhere=elsewhere if one.elsewhere else None,
            merged=Merged.together(merged, len(one)) if merged else None,
            placed=placed,
        )

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def patches(self) -> int:
        """Visual tokens of this picture before any reduction: one for each patch, merged or not."""
        return len(self.features if self.merged is None else self.merged.source)

    @cached_property
    def placeholders(self) -> int:
        """Placeholders of this picture in the processor's prompt: patches, and what stands between them."""
        return self.patches + (0 if self.separators is None else len(self.separators.at))

    @property
    def frame_sizes(self) -> list[int]:
        """How many tokens each frame, or each tile, has."""
        count, rows, columns = self.grid
        return [height * width for height, width in self.tiles or ((rows, columns),) * count]

    @property
    def class_tokens(self) -> int:
        """How many class tokens a method may keep: none, one, or one for each frame."""
        return 0 if self.class_feature is None else len(self.class_feature[..., 0].reshape(-1))

    @property
    def picture_grid(self) -> tuple[int, int, int]:
        """Frames, rows, columns of the picture's patches, merged or not."""
        return self.grid if self.merged is None else self.merged.grid

    def attention(self, *, split_heads: bool = True) -> Float[Tensor, "N"]:
        """Attention that each patch receives, in float32: from the class token, or the mean over all patches
        of its frame; merged tokens weigh by their sizes.

        `split_heads=True` is the attention the encoder computes, averaged over heads. `False` takes all heads
        as one of width D, scale D^-0.5: what the official PruMerge code does.
        """
        if self.tiles:  # of different sizes
            return torch.cat([tile.attention(split_heads=split_heads) for tile in self.frames()])
        one = self.class_key is not None and self.class_key.ndim == 1  # class token over all frames
        return self.received(1 if one else self.grid[0], split_heads=split_heads, sizes=self.sizes)

    def scored_by(self, layer: Layer) -> VisualTokens:
        """The same patches with queries and keys of another layer: the vision tower's `first`, the `writer`
        of the features, whose attention most papers take, or one by its number or share (`Layer`); of the
        scoring layer where the encoder gave no other, with a warning unless the writer was asked for.

        A layer between the first and the writer is computed by running the layers below it once more.
        """
        if self.elsewhere is None:
            if layer != "writer":
                warnings.warn(
                    f"attention of one layer only: it stands for that of layer {layer}", stacklevel=2
                )
            return self
        other = self.elsewhere(layer)
        if not isinstance(other, Scores):
            queries, keys, class_key = other
            other = Scores(queries=queries, keys=keys, class_key=class_key, heads=self.heads)
        return replace(self, **other.named(), elsewhere=None)

    @torch.no_grad()
    def embeddings(self) -> Float[Tensor, "N H"]:
        """The patches as the language model would read them without reduction, to compare them; float32."""
        return (self.features if self.embed is None else self.embed(self.features)).float()

    def embedded(self) -> VisualTokens:
        """The same patches with what the language model would read as their features."""
        if self.embed is None:
            return self
        return replace(self, features=self.embeddings(), class_feature=None, embed=None)

    def frames(self) -> list[VisualTokens]:
        """Each frame, or each tile, as a picture of its own; of a picture in one piece, itself."""
        count, rows, columns = self.grid
        grids = self.tiles or ((rows, columns),) * count
        if len(grids) == 1 and not self.tiles:
            return [self]
        sizes = self.frame_sizes

        def class_tokens(values: Tensor) -> Sequence[Tensor]:
            return [values] * len(sizes) if values.ndim == 1 else values.unbind()

        def queries(values: Tensor) -> Sequence[Tensor]:
            if self.class_key is None:
                return values.split(sizes)
            return [values] * len(sizes) if len(values) == 1 else values.split(1)

        parts = self.by_axis(
            token=lambda values: values.split(sizes), class_token=class_tokens, query=queries
        )

        of_layer = cache(lambda layer: self.scored_by(layer).frames())

        def elsewhere(number: int, layer: Layer) -> Scores:
            return of_layer(layer)[number]

        return [
            replace(
                self,
                **{name: part[number] for name, part in parts.items()},
                **_ALONE,
                grid=(1, *grid),
                elsewhere=partial(elsewhere, number) if self.elsewhere else None,
            )
            for number, grid in enumerate(grids)
        ]

    @torch.no_grad()
    def assigned(self, reduction: Reduction) -> Reduction:
        """The same reduction with the token that stands for each patch.

        Where the method did not say: the kept token whose key is most similar, among those of the patch's own
        frame if any stays there. A class token that was kept stands for no patch, unless nothing else stays.
        """
        if reduction.assignment is not None:
            return reduction
        index, weights, rows = reduction.index, reduction.weights, None
        if weights is not None and weights.shape[1] > len(self):
            rows = (weights[:, : len(self)] != 0).any(dim=1).nonzero()[:, 0]
            rows = rows if len(rows) else torch.arange(len(index), device=index.device)
            index = index[rows]
        own = ops.most_similar(self.keys, index, self.frame_sizes)
        return replace(reduction, assignment=own if rows is None else rows[own])

    def whole(self, reduction: Reduction) -> Reduction:
        """A reduction of these tokens as one of the picture's patches."""
        if self.merged is None:
            return reduction
        return reduction.after(self.merged.reduction(len(self)), self.patches, self.class_tokens)

    def reduced(self, reduction: Reduction, *, by_frame: bool = False) -> VisualTokens:
        """What is left, for the next method: a single row of tokens in the order of `reduction`.

        Keys (and queries, where each patch has one) go through the same matrix as the features, those of
        other layers too; sizes count patches; of several class tokens the mean is left. With `by_frame`
        tokens of a frame stay one (a tile, with its class token), and only sizes that were there go on.
        """
        size = len(self) // self.grid[0]
        new = torch.bincount(reduction.index // size, minlength=self.grid[0]) if by_frame else None
        shown = None if new is None else new.nonzero()[:, 0]
        tiles = () if new is None else tuple((1, count) for count in new.tolist() if count)

        def class_token(values: Tensor) -> Tensor:
            if values.ndim == 1:
                return values
            return values.float().mean(0).to(values.dtype) if shown is None else values[shown]

        def query(values: Tensor) -> Tensor:
            if self.class_key is None:
                return reduction.of(values)
            return values if shown is None or len(values) == 1 else values[shown]

        def elsewhere(layer: Layer) -> Scores:
            return self.scored_by(layer).reduced(reduction, by_frame=by_frame)

        own = ("features", "keys", "sizes")
        changed = self.by_axis(token=reduction.of, class_token=class_token, query=query, but=own)
        changed["features"] = reduction.apply(self)
        changed["keys"] = reduction.of(self.keys, None if by_frame else self.class_key)
        if self.sizes is not None or (reduction.weights is not None and not by_frame):
            changed["sizes"] = reduction.sizes(self.sizes)
        return replace(
            self,
            **changed,
            **{**_ALONE, "tiles": tiles},
            grid=(1, 1, len(reduction)),
            elsewhere=elsewhere if self.elsewhere else None,
        )


# How a part of a picture lies, or what is left of one: in one piece, with nothing between.
_ALONE: dict[str, Any] = {"merged": None, "tiles": (), "placed": None, "separators": None}


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
