"""What methods derive from: a frozen dataclass whose fields are its options, called with one picture's visual
tokens. Where a method works (`PLACES`) is what it derives from."""

from __future__ import annotations

import math
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.catalogue import name_of
from prumerge.errors import PrumergeError
from prumerge.ops.batching import grouped, kind, together
from prumerge.reduction import Reduction, joined
from prumerge.tokens import VisualTokens

PLACES = ("vision tower", "before the language model", "language model")
"""Where a method can work, in the order in which a picture comes by."""


@dataclass(frozen=True, kw_only=True)
class Reducer(ABC):
    """A method of visual-token reduction.

    Its options are its fields; wrong ones raise TypeError or ValueError.
    """

    paper: ClassVar[str] = ""
    """Where the method comes from."""

    place: ClassVar[str] = "before the language model"
    """Where it works: one of `PLACES`."""

    needs: ClassVar[str] = "nothing"
    """What it reads besides the features: "attention" (in the tower of the class token, or the mean over
    patches where there is none), "class token", "keys", "text", "frames"; several with commas between
    them."""

    training_free: ClassVar[bool] = True
    """Whether it works on a model that was not trained with it."""

    adaptive: ClassVar[bool] = False
    """Whether the number of tokens follows the image when `keep` is left out."""

    video: ClassVar[bool] = False
    """Whether it compares the frames of a video."""

    decides: ClassVar[Literal["one by one", "together", "once"]] = "one by one"
    """How pictures of one shape are decided: one by one; together, by `torch.vmap` over the method, which
    then must not wait for the device; or once for all of them, where what a picture shows does not count."""

    keep: int | float | None = None
    """Visual tokens to keep: a count, a share below 1, or none for the method's own choice."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            if not _fits(value := getattr(self, field.name), hints[field.name]):
                wanted = _words(hints[field.name])
                raise TypeError(f"{self}: {field.name} must be {wanted}, not {value!r}")
        if isinstance(self.keep, float) and not 0 < self.keep < 1:
            raise PrumergeError(f"{self}: keep is a whole number of visual tokens or a share between 0 and 1")
        if isinstance(self.keep, int) and self.keep < 1:
            raise PrumergeError(f"{self}: keep must be at least 1, the language model needs one visual token")

    @abstractmethod
    def __call__(self, tokens: VisualTokens) -> Reduction:
        """Decide what to keep of one image, and how it is merged."""

    def decide(self, pictures: Sequence[VisualTokens]) -> list[Reduction]:
        """Decide about several pictures, each as if it came alone; those of one shape as `decides` says."""
        if self.decides == "one by one":
            return [self(tokens) for tokens in pictures]

        if self.decides == "once":
            places = [(tokens.grid, tokens.tiles, tokens.features.device) for tokens in pictures]
            return grouped(pictures, places, lambda alike: [self(alike[0])] * len(alike))
        return grouped(pictures, [kind(tokens) for tokens in pictures], partial(decided, self))

    @property
    def parts(self) -> tuple[Reducer, ...]:
        """The methods of a chain, in order; of a method alone, itself."""
        return (self,)

    @cached_property
    def placed(self) -> Placed:
        """The same by where they work."""
        return Placed(before=self)

    def count(self, available: int) -> int:
        """The number of tokens that `keep` asks for out of `available`."""
        if self.keep is None:
            raise TypeError(f"{self}: no keep is given, the method itself has to choose")
        if isinstance(self.keep, float):
            return max(1, math.floor(self.keep * available + 1e-9))
        if self.keep > available:
            raise PrumergeError(
                f"{self}: keep is more than the {available} visual tokens of this image; "
                f"ask for at most {available}, or for a share such as keep=0.25"
            )
        return self.keep

    def need(self, there: bool, what: str, *, instead: str) -> None:
        """Raise ValueError where the tokens lack what the method needs, naming a method that would work."""
        if not there:
            raise PrumergeError(f"{self} needs {what}; without, use for example {instead}")

    def relevance(self, tokens: VisualTokens, *, instead: str) -> Float[Tensor, "N"]:
        """How well each patch matches the text, 0 to 1: as given, or by the language model's embeddings
        of patches and words. Raises ValueError without text."""
        if tokens.relevance is not None:
            return tokens.relevance.float()
        return ops.relevance(tokens.embeddings(), self.text(tokens, instead=instead), inverted=False)

    def text(self, tokens: VisualTokens, *, instead: str) -> Float[Tensor, "T H"]:
        """The language model's embeddings of the words around the picture; in a batch, where other pictures
        have more of them, rows of zeros follow. Raises ValueError without text."""
        words = tokens.text() if tokens.text else tokens.features[:0]
        self.need(
            len(words) > 0, "text (words around the picture, or VisualTokens.relevance)", instead=instead
        )
        return words.detach().float()

    def __str__(self) -> str:
        """The spec that makes this reducer, without the options left at their defaults."""
        given = [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        name = name_of(type(self).__module__, type(self).__qualname__)
        return f"{name}:{','.join(given)}" if given else name


@dataclass(frozen=True, kw_only=True)
class FrameByFrame(Reducer):
    """Every frame gets its even share of the budget.

    So that memory grows with the square of a frame's tokens and not of the video's.
    """

    decides = "together"

    def __call__(self, tokens: VisualTokens) -> Reduction:
        if tokens.grid[0] == 1 and not tokens.tiles:
            return self.choose(tokens, self.count(len(tokens)))
        return self.decide([tokens])[0]

    def decide(self, pictures: Sequence[VisualTokens]) -> list[Reduction]:
        """Decide about the frames of all pictures; those of one shape and share together."""
        videos = [tokens.frames() for tokens in pictures]
        sizes = [[len(frame) for frame in frames] for frames in videos]
        wanted = [shares(self.count(len(tokens)), own) for tokens, own in zip(pictures, sizes, strict=True)]
        at = [
            (picture, number)
            for picture, own in enumerate(wanted)
            for number, share in enumerate(own)
            if share  # fewer tokens than frames leave some frames out
        ]
        chosen = with_counts(
            self.choose,
            [videos[picture][number] for picture, number in at],
            [wanted[picture][number] for picture, number in at],
        )
        parts: list[dict[int, Reduction]] = [{} for _ in pictures]
        for (picture, number), reduction in zip(at, chosen, strict=True):
            parts[picture][number] = reduction
        return [joined(*each) for each in zip(parts, sizes, strict=True)]

    @abstractmethod
    def choose(self, tokens: VisualTokens, count: int) -> Reduction:
        """Decide which `count` (at least 1) tokens of one frame are left."""


@dataclass(frozen=True, kw_only=True)
class Adaptive(Reducer):
    """A score for each token decides, without `keep` also about how many stay.

    The scores of all pictures come first, then how many tokens each of them gets, in one wait for the device.
    """

    decides = "together"
    adaptive = True

    def __call__(self, tokens: VisualTokens) -> Reduction:
        scores = self.scores(tokens)
        count = int(self.wanted(scores)) if self.keep is None else self.count(len(tokens))
        return self.choose(tokens, scores, count)

    def decide(self, pictures: Sequence[VisualTokens]) -> list[Reduction]:
        """Decide about all pictures; those of one shape and count together."""
        if self.keep is not None:
            counts = [self.count(len(tokens)) for tokens in pictures]
            return with_counts(
                lambda tokens, count: self.choose(tokens, self.scores(tokens), count), pictures, counts
            )

        def scored(tokens: VisualTokens) -> tuple[Tensor, Tensor]:
            scores = self.scores(tokens)
            return scores, self.wanted(scores)

        found = grouped(pictures, [kind(tokens) for tokens in pictures], partial(together, scored))
        counts = torch.stack([count for _, count in found]).tolist() if found else []
        return with_counts(
            lambda tokens, scores, count: self.choose(tokens, scores, count),
            pictures,
            counts,
            [scores for scores, _ in found],
        )

    @abstractmethod
    def scores(self, tokens: VisualTokens) -> Float[Tensor, "N"]:
        """What each token is chosen by."""

    @abstractmethod
    def wanted(self, scores: Float[Tensor, "N"]) -> Int[Tensor, ""]:
        """How many tokens to choose where `keep` is not given; it stays on the device."""

    @abstractmethod
    def choose(self, tokens: VisualTokens, scores: Float[Tensor, "N"], count: int) -> Reduction:
        """Decide which `count` tokens are left, and how they are merged."""


@dataclass(frozen=True, kw_only=True)
class TowerReducer(Reducer):
    """A method that merges inside the vision tower, between attention and MLP of its blocks.

    Called by itself it is one such step on a picture's tokens.
    """

    place = "vision tower"

    proportional: bool = True
    """Attention to a merged token weighs by its size: the logarithm is added to its logit."""

    @cached_property
    def placed(self) -> Placed:
        return Placed(tower=self)

    @abstractmethod
    def schedule(self, patches: int, blocks: int) -> list[int]:
        """How many tokens to merge away in each of the tower's blocks."""

    @abstractmethod
    def match(self, keys: Float[Tensor, "*B S D"], r: int, *, class_token: bool) -> Int[Tensor, "*B S"]:
        """Which of the S - r tokens that are left each token goes into."""


@dataclass(frozen=True, kw_only=True)
class LayerReducer(Reducer):
    """A method that prunes between layers of the language model.

    It is called at each of its stages with the visual tokens of one picture as they are there:
    `tokens.features` are their hidden states, `tokens.relevance` the attention they receive from the prompt.
    """

    place = "language model"
    needs = "attention"

    reads: ClassVar[int] = -1
    """Whose attention a stage looks at: that of the layer before it (-1) or of the layer after it (0)."""

    prefix: ClassVar[bool] = False
    """Whether all tokens stay, and only their keys and values become means: it then is called before the
    language model, and says by `Reduction.assignment` into which row those of each token go."""

    positions: Literal["original", "compact"] = "original"
    """Position ids of what is left: as they were, or counted anew without gaps."""

    @cached_property
    def placed(self) -> Placed:
        return Placed(layers=self)

    @abstractmethod
    def depths(self, layers: int) -> tuple[int, ...]:
        """Its stages in a language model of so many layers: a stage at depth d stands before layer d."""

    def at(self, stage: int, stages: int, available: int) -> Reducer:
        """What decides at a stage (0 is the first) about a picture that came with `available` tokens."""
        return self

    def received(self, tokens: VisualTokens) -> Float[Tensor, "N"]:
        """The attention that each token receives in a layer; ValueError where nobody has looked."""
        self.need(
            tokens.relevance is not None,
            "the attention of a language model's layer (prumerge.attach lets it work there)",
            instead="topk",
        )
        assert tokens.relevance is not None
        return tokens.relevance

    def askers(self, visual: Float[Tensor, "N H"], text: Float[Tensor, "T H"]) -> Bool[Tensor, "T"] | None:
        """Which of the words after a picture ask for its tokens, chosen on their embeddings; None: only the
        last token of the prompt."""
        return None


@dataclass(frozen=True)
class Placed:
    """A method's parts by where they work."""

    tower: TowerReducer | None = None
    """Inside the vision tower."""
    before: Reducer | None = None
    """Between encoder and language model; None: every token goes on."""
    layers: LayerReducer | None = None
    """Between layers of the language model."""

    @cached_property
    def prefix(self) -> LayerReducer | None:
        """The same where it decides before the language model, about keys and values alone."""
        return self.layers if self.layers is not None and self.layers.prefix else None


def decided(
    method: Callable[..., Reduction], pictures: Sequence[VisualTokens], *own: Sequence[Tensor]
) -> list[Reduction]:
    """`method(tokens, *values)` for pictures of one kind, together, and what each has of its `own`."""

    def parts(*picture: Any) -> tuple[Tensor, ...]:
        reduction = method(*picture)
        return (reduction.index,) if reduction.weights is None else (reduction.index, reduction.weights)

    return [Reduction(*each) for each in together(parts, pictures, *own)]


def with_counts(
    method: Callable[..., Reduction],
    pictures: Sequence[VisualTokens],
    counts: Sequence[int],
    *own: Sequence[Tensor],
) -> list[Reduction]:
    """`method(tokens, *values, count)` for each picture; those of one kind and count together."""
    keys = [(kind(tokens), count) for tokens, count in zip(pictures, counts, strict=True)]

    def group(alike: list[tuple[Any, ...]]) -> list[Reduction]:
        count = alike[0][0]
        _, *columns = zip(*alike, strict=True)
        return decided(lambda *picture: method(*picture, count), *columns)

    return grouped(list(zip(counts, pictures, *own, strict=True)), keys, group)


def shares(count: int, sizes: list[int]) -> list[int]:
    """A budget divided among frames of these sizes, evenly by their tokens."""
    ends = [count * end // sum(sizes) for end in accumulate(sizes, initial=0)]
    return [end - start for start, end in pairwise(ends)]


def _fits(value: object, hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _words(hint: Any) -> str:
    """A type as a user would say it."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_words(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    spoken = {
        int: "a whole number",
        float: "a number",
        bool: "on or off",
        str: "a word",
        types.NoneType: "none",
    }
    return spoken.get(hint, f"of type {getattr(hint, '__name__', hint)}")


def __getattr__(name: str) -> Any:
    """`make` was here once; it is in `prumerge.spec`, which knows this file."""
    if name == "make":
        from prumerge.spec import make

        return make
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
