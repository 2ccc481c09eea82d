"""What a method is: a frozen dataclass whose fields are its options, called with one image's visual
tokens."""

from __future__ import annotations

import math
import types
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from prumerge import ops
from prumerge.catalogue import added, name_of, names
from prumerge.tokens import Reduction, VisualTokens

__all__ = ["PLACES", "Chain", "Reducer", "make", "names"]

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

    keep: int | float | None = None
    """Visual tokens to keep: a count, a share below 1, or none for the method's own choice."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            if not _fits(value := getattr(self, field.name), hints[field.name]):
                wanted = _words(hints[field.name])
                raise TypeError(f"{self}: {field.name} must be {wanted}, not {value!r}")
        if isinstance(self.keep, float) and not 0 < self.keep < 1:
            raise ValueError(f"{self}: keep is a whole number of visual tokens or a share between 0 and 1")
        if isinstance(self.keep, int) and self.keep < 1:
            raise ValueError(f"{self}: keep must be at least 1, the language model needs one visual token")

    @abstractmethod
    def __call__(self, tokens: VisualTokens) -> Reduction:
        """Decide what to keep of one image, and how it is merged."""

    @property
    def parts(self) -> tuple[Reducer, ...]:
        """The methods of a chain, in order; of a method alone, itself."""
        return (self,)

    def count(self, available: int) -> int:
        """The number of tokens that `keep` asks for out of `available`."""
        if self.keep is None:
            raise TypeError(f"{self}: no keep is given, the method itself has to choose")
        if isinstance(self.keep, float):
            return max(1, math.floor(self.keep * available + 1e-9))
        if self.keep > available:
            raise ValueError(
                f"{self}: keep is more than the {available} visual tokens of this image; "
                f"ask for at most {available}, or for a share such as keep=0.25"
            )
        return self.keep

    def need(self, there: bool, what: str, *, instead: str) -> None:
        """Raise ValueError where the tokens lack what the method needs, naming a method that would work."""
        if not there:
            raise ValueError(f"{self} needs {what}; without, use for example {instead}")

    def relevance(self, tokens: VisualTokens, *, instead: str) -> Float[Tensor, "N"]:
        """How well each patch matches the text, 0 to 1: as given, or by the language model's embeddings
        of patches and words. Raises ValueError without text."""
        if tokens.relevance is not None:
            return tokens.relevance.float()
        words = tokens.text() if tokens.text else tokens.features[:0]
        self.need(
            len(words) > 0, "text (words around the picture, or VisualTokens.relevance)", instead=instead
        )
        return ops.relevance(tokens.embeddings(), words.detach(), inverted=False)

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
                raise ValueError(f"{self}: only one method of a chain can work in the {PLACES[place]}")
        if at != sorted(at):
            ordered = "+".join(map(str, sorted(self.chain, key=lambda part: PLACES.index(part.place))))
            raise ValueError(
                f"{self}: a picture comes by the vision tower first and the language model last; "
                f"write {ordered}"
            )

    @property
    def parts(self) -> tuple[Reducer, ...]:
        return self.chain

    def __call__(self, tokens: VisualTokens) -> Reduction:
        """What the methods before the language model decide together."""
        before = [part for part in self.chain if part.place == Reducer.place] or [make("none")]
        whole = before[0](tokens)
        for part in before[1:]:
            whole = part(tokens.reduced(whole)).after(whole, len(tokens), tokens.class_tokens)
        return whole

    def __str__(self) -> str:
        return "+".join(map(str, self.chain))


def make(spec: str | Reducer) -> Reducer:
    """A reducer from `"name"` or `"name:option=value,option=value"`, a chain of them from `"first+second"`; a
    reducer is handed back as it is.

    `"name@each"` looks at each frame or tile alone, `"name@merged"` merges what repeats from frame to frame
    first.

    Raises ValueError for unknown names, options and values, naming those there are.
    """
    if isinstance(spec, str) and "+" in spec:
        return Chain(chain=tuple(make(part.strip()) for part in spec.split("+")))
    if isinstance(spec, Reducer):
        return spec
    if isinstance(spec, str) and "@" in spec:
        from prumerge.temporal import over_frames  # which makes methods itself

        return over_frames(spec)
    if not isinstance(spec, str):
        raise TypeError(
            f"a method is a name such as 'prumerge:keep=64' or a Reducer, not {type(spec).__name__}"
        )
    name, _, options = spec.partition(":")
    if name not in names():
        raise ValueError(f"there is no method {name!r}; choose one of: {', '.join(names())}")
    kind = _kind(name)
    known = [field.name for field in fields(kind)]
    arguments: dict[str, Any] = {}
    for option in options.split(",") if options else []:
        key, separator, value = option.partition("=")
        key = key.strip()
        if not separator:
            raise ValueError(f"{spec!r}: write options as name=value, separated by commas; {option!r} is not")
        if key not in known:
            raise ValueError(f"{name} has no option {key!r}; it has: {', '.join(known)}")
        if key in arguments:
            raise ValueError(f"{spec!r}: {key} is given twice")
        arguments[key] = _value(value.strip())
    try:
        return kind(**arguments)
    except TypeError as error:  # in a spec every mistake is one of value
        raise ValueError(str(error)) from None


def _kind(name: str) -> type[Reducer]:
    """The class of a method: the one in the file of that name, or what another package's entry point gives.

    Raises TypeError if that is no method.
    """
    if name in added():
        kind = added()[name].load()
        if not (isinstance(kind, type) and issubclass(kind, Reducer)):
            raise TypeError(f"the method {name!r} of another package is no subclass of prumerge.Reducer")
        return kind
    module = import_module(f"prumerge.reducers.{name}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Reducer) and value.__module__ == module.__name__
    )


_WORDS = {"none": None, "true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}


def _value(text: str) -> int | float | bool | str | None:
    """What a value in a spec means: a whole number, a number, a switch, none, or a word."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return _WORDS.get(text.lower(), text)


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
