"""Methods made of methods: one after the other, and over the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch.nn.functional import normalize

from prumerge.errors import PrumergeError
from prumerge.reducer import PLACES, Placed, Reducer
from prumerge.reduction import Reduction, joined
from prumerge.tokens import VisualTokens


@dataclass(frozen=True, kw_only=True)
class Chain(Reducer):
    """Methods one after the other, each on what the one before it left: `"a+b"`.

    Methods before the language model are matrices, so a chain of them is their product. One method in the
    vision tower may come first and one inside the language model last.
    """

    chain: tuple[Reducer, ...]

    def __post_init__(self) -> None:
        at = [PLACES.index(part.place) for part in self.chain]
        for place in (0, 2):
            if at.count(place) > 1:
                raise PrumergeError(f"{self}: only one method of a chain can work in the {PLACES[place]}")
        if at != sorted(at):
            ordered = "+".join(map(str, sorted(self.chain, key=lambda part: PLACES.index(part.place))))
            raise PrumergeError(
                f"{self}: a picture comes by the vision tower first and the language model last; "
                f"write {ordered}"
            )

    @property
    def parts(self) -> tuple[Reducer, ...]:
        return self.chain

    @cached_property
    def placed(self) -> Placed:
        placed = [part.placed for part in self.chain]
        before = tuple(one.before for one in placed if one.before is not None)
        return Placed(
            tower=next((one.tower for one in placed if one.tower is not None), None),
            before=Chain(chain=before) if len(before) > 1 else next(iter(before), None),
            layers=next((one.layers for one in placed if one.layers is not None), None),
        )

    def __call__(self, tokens: VisualTokens) -> Reduction:
        """What the methods before the language model decide together; every token where there is none."""
        return self.decide([tokens])[0]

    def decide(self, pictures: Sequence[VisualTokens]) -> list[Reduction]:
        """Each method decides about what the ones before it left of all pictures."""
        parts = [part for part in self.chain if part.place == Reducer.place]
        if not parts:
            return [
                Reduction(torch.arange(len(tokens), device=tokens.features.device)) for tokens in pictures
            ]
        first, *others = parts
        whole = first.decide(pictures)
        for part in others:
            left = [tokens.reduced(one) for tokens, one in zip(pictures, whole, strict=True)]
            whole = [
                then.after(one, len(tokens), tokens.class_tokens)
                for tokens, one, then in zip(pictures, whole, part.decide(left), strict=True)
            ]
        return whole

    def __str__(self) -> str:
        return "+".join(map(str, self.chain))


@dataclass(frozen=True, kw_only=True)
class OverFrames(Reducer):
    """A method, frame by frame or on what does not repeat; other pictures are reduced as by the method.

    By itself a method looks at all frames of a video, or tiles of a large picture, together. `"method@each"`
    gives each frame or tile to it alone, so that `keep` is a budget for each. `"method@merged"` first merges
    what repeats from frame to frame: the token of the first frame that shows something absorbs those at the
    same place in the frames after it.
    """

    method: Reducer
    frames: Literal["each", "merged"]
    threshold: float = 0.9
    """Merged: the cosine of two tokens from which on one is the other's repeat."""

    def __post_init__(self) -> None:
        super().__post_init__()
        inside = [part for part in self.method.parts if part.place != Reducer.place]
        if inside:
            raise PrumergeError(
                f"{self}: {inside[0]} works in the {inside[0].place}, where a picture is not seen "
                "frame by frame; leave out what follows @"
            )
        object.__setattr__(self, "needs", ", ".join(part.needs for part in self.method.parts))
        object.__setattr__(
            self, "video", self.frames == "merged" or any(part.video for part in self.method.parts)
        )
        if not -1 <= self.threshold <= 1:
            raise PrumergeError(f"{self}: a cosine lies between -1 and 1, so a threshold must as well")

    def __call__(self, tokens: VisualTokens) -> Reduction:
        return self.decide([tokens])[0]

    def decide(self, pictures: Sequence[VisualTokens]) -> list[Reduction]:
        """The method decides about the frames of all pictures, or about what does not repeat in each."""
        if self.frames == "each":
            videos = [tokens.frames() for tokens in pictures]
            chosen = iter(self.method.decide([frame for frames in videos for frame in frames]))
            return [
                joined(
                    {number: next(chosen) for number in range(len(frames))}, [len(frame) for frame in frames]
                )
                for frames in videos
            ]
        firsts = [repeats(tokens, self.threshold) if tokens.grid[0] > 1 else None for tokens in pictures]
        left = [
            tokens if first is None else tokens.reduced(first, by_frame=True)
            for tokens, first in zip(pictures, firsts, strict=True)
        ]
        return [
            chosen if first is None else chosen.after(first, len(tokens), rest.class_tokens)
            for tokens, first, rest, chosen in zip(
                pictures, firsts, left, self.method.decide(left), strict=True
            )
        ]

    def __str__(self) -> str:
        threshold = f"={self.threshold}" if self.threshold != type(self).threshold else ""
        return f"{self.method}@{self.frames}{threshold}"


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
    return Reduction(index, members / members.sum(1, keepdim=True), torch.searchsorted(index, owners))
