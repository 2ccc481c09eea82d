"""How a method treats the frames of a video, or the tiles of a large picture, whichever method it is.

By itself it looks at all of them together. `"method@each"` gives each frame or tile to it alone, so that
`keep` is a budget for each. `"method@merged"` first merges what repeats from frame to frame: the token of the
first frame that shows something absorbs those at the same place in the frames after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.nn.functional import normalize

from prumerge.frames import joined
from prumerge.reducer import Reducer, make
from prumerge.tokens import Layer, Reduction, Scores, VisualTokens


@dataclass(frozen=True, kw_only=True)
class OverFrames(Reducer):
    """A method, frame by frame or on what does not repeat; other pictures are reduced as by the method."""

    method: Reducer
    frames: Literal["each", "merged"]
    threshold: float = 0.9
    """Merged: the cosine of two tokens from which on one is the other's repeat."""

    def __post_init__(self) -> None:
        super().__post_init__()
        inside = [part for part in self.method.parts if part.place != Reducer.place]
        if inside:
            raise ValueError(
                f"{self}: {inside[0]} works in the {inside[0].place}, where a picture is not seen "
                "frame by frame; leave out what follows @"
            )
        object.__setattr__(self, "needs", ", ".join(part.needs for part in self.method.parts))
        object.__setattr__(
            self, "video", self.frames == "merged" or any(part.video for part in self.method.parts)
        )
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"{self}: a cosine lies between -1 and 1, so a threshold must as well")

    def __call__(self, tokens: VisualTokens) -> Reduction:
        if self.frames == "each":
            frames = tokens.frames()
            parts = {number: self.method(frame) for number, frame in enumerate(frames)}
            return joined(parts, [len(frame) for frame in frames])
        if tokens.grid[0] == 1:
            return self.method(tokens)
        first = repeats(tokens, self.threshold)
        left = merged(tokens, first)
        return self.method(left).after(first, len(tokens), left.class_tokens)

    def __str__(self) -> str:
        threshold = f"={self.threshold}" if self.threshold != type(self).threshold else ""
        return f"{self.method}@{self.frames}{threshold}"


def over_frames(spec: str) -> OverFrames:
    """A reducer from `"method@each"`, `"method@merged"` or `"method@merged=0.8"`."""
    method, _, how = spec.rpartition("@")
    frames, separator, value = how.strip().partition("=")
    try:
        threshold = float(value) if separator else OverFrames.threshold
    except ValueError:
        frames = ""
    if frames not in ("each", "merged") or (separator and frames == "each"):
        raise ValueError(f"{spec!r}: what follows @ is each, merged, or merged=0.8 (any cosine), not {how!r}")
    return OverFrames(method=make(method), frames=frames, threshold=threshold)  # type: ignore[arg-type]


def repeats(tokens: VisualTokens, threshold: float) -> Reduction:
    """Each token that is not like the one its place last kept stays, averaged with its repeats after it."""
    frames, rows, columns = tokens.grid
    direction = normalize(tokens.features.detach().float(), dim=-1).view(frames, rows * columns, -1)
    own = torch.arange(len(tokens), device=direction.device).view(frames, -1)
    owner, like = [own[0]], direction[0]
    for frame in range(1, frames):
        again = (direction[frame] * like).sum(-1) >= threshold
        owner.append(torch.where(again, owner[-1], own[frame]))
        like = torch.where(again[:, None], like, direction[frame])
    owners = torch.cat(owner)
    index = (owners == own.flatten()).nonzero()[:, 0]
    members = (owners == index[:, None]).float()
    return Reduction(index, members / members.sum(1, keepdim=True))


def merged(tokens: VisualTokens, first: Reduction) -> VisualTokens:
    """What is left of a video, frame by frame, each with as many tokens as are new in it."""
    size = len(tokens) // tokens.grid[0]
    new = torch.bincount(first.index // size, minlength=tokens.grid[0])
    shown = new.nonzero()[:, 0]
    per_frame = tokens.class_key is not None and tokens.class_key.ndim == 2
    queries = tokens.queries[shown] if per_frame else tokens.queries

    def elsewhere(layer: Layer) -> Scores:
        left = merged(tokens.scored_by(layer), first)
        return left.queries, left.keys, left.class_key

    return replace(
        tokens,
        features=first.apply(tokens),
        keys=first.of(tokens.keys),
        queries=tokens.queries[first.index] if tokens.class_key is None else queries,
        class_key=tokens.class_key[shown] if per_frame and tokens.class_key is not None else tokens.class_key,
        class_feature=(
            tokens.class_feature[shown]
            if tokens.class_feature is not None and tokens.class_feature.ndim == 2
            else tokens.class_feature
        ),
        relevance=None if tokens.relevance is None else tokens.relevance[first.index],
        elsewhere=elsewhere if tokens.elsewhere else None,
        grid=(1, 1, len(first)),
        tiles=tuple((1, count) for count in new.tolist() if count),
        sizes=None if tokens.sizes is None else first.sizes(tokens.sizes),
        merged=None,
        placed=None,
        separators=None,
    )
