"""From text to a method: `name:option=value,...`, chains by `+`, frames by `@each` and `@merged`.

spec    = part ("+" part)*                                  methods one after the other
part    = method ["@each" | "@merged" | "@merged=" cosine]  how frames and tiles are treated
method  = name [":" option "=" value ("," option "=" value)*]
"""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from importlib import import_module
from typing import Any

from prumerge.catalogue import added, names
from prumerge.compose import Chain, OverFrames
from prumerge.errors import PrumergeError, unknown
from prumerge.reducer import Reducer


def make(spec: str | Reducer) -> Reducer:
    """A method from `"name"` or `"name:option=value,option=value"`, a chain of them from `"first+second"`; a
    method is handed back as it is.

    `"name@each"` looks at each frame or tile alone, `"name@merged"` merges what repeats from frame to frame
    first. `keep` is a count, a share (`0.25`, `25%`), or `auto`: the method's own choice.

    Raises ValueError for unknown names, options and values, naming those there are, and TypeError for
    something that is neither text nor a method.
    """
    if isinstance(spec, Reducer):
        return spec
    if not isinstance(spec, str):
        raise TypeError(
            f"a method is a name such as 'prumerge:keep=64' or a Reducer, not {type(spec).__name__}"
        )
    return _made(spec)


@lru_cache(maxsize=1024)
def _made(spec: str) -> Reducer:
    if "+" not in spec:
        return _part(spec)
    return Chain(chain=tuple(_part(part.strip()) for part in spec.split("+")))


def split_specs(text: str) -> list[str]:
    """The specs in a list: `a,b:x=1,y=2,c` is a, b:x=1,y=2 and c, as an option belongs to the method before
    it."""
    specs: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if specs and "=" in part and ":" not in part.partition("=")[0]:
            specs[-1] += f",{part}"
        else:
            specs.append(part)
    return specs


def with_keep(spec: str, keep: int | float | str) -> str:
    """The spec with a budget: of a chain its last method gets it, before what says how it treats frames
    (`topk@merged`)."""
    before, plus, last = spec.rpartition("+")
    method, at, frames = last.partition("@")
    return f"{before}{plus}{method}{',' if ':' in method else ':'}keep={keep}{at}{frames}"


def _part(text: str) -> Reducer:
    """One method, with how it treats frames."""
    method, at, how = text.partition("@")
    if not at:
        return _method(text)
    frames, given, value = how.strip().partition("=")
    try:
        threshold = float(value) if given else OverFrames.threshold
    except ValueError:
        frames = ""
    if frames not in ("each", "merged") or (given and frames == "each"):
        raise PrumergeError(
            f"{text!r}: what follows @ is each, merged, or merged=0.8 (any cosine), not {how!r}"
        )
    return OverFrames(method=_method(method), frames=frames, threshold=threshold)  # type: ignore[arg-type]


def _method(text: str) -> Reducer:
    name, colon, options = text.partition(":")
    if name not in names():
        raise PrumergeError(unknown("method", name, names()))
    if colon and not options:
        raise PrumergeError(
            f"{text!r}: after the colon come options, such as {name}:keep=36; or leave it out"
        )
    kind = _class(name)
    known = [field.name for field in fields(kind)]
    arguments: dict[str, Any] = {}
    for option in options.split(",") if options else []:
        key, equals, value = (part.strip() for part in option.partition("="))
        if not equals:
            raise PrumergeError(
                f"{text!r}: write options as name=value, separated by commas; {option!r} is not"
            )
        if key not in known:
            raise PrumergeError(f"{name} has no option {key!r}; it has: {', '.join(known)}")
        if key in arguments:
            raise PrumergeError(f"{text!r}: {key} is given twice")
        arguments[key] = _value(value)
        if key == "keep":
            arguments[key] = _budget(arguments[key])
            if arguments[key] == "auto":  # as the method has it that is not told
                arguments[key] = kind.keep
    try:
        return kind(**arguments)
    except TypeError as error:  # in a spec every mistake is one of value
        raise PrumergeError(str(error)) from None


def _class(name: str) -> type[Reducer]:
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


def _budget(value: Any) -> Any:
    """25% is the share 0.25."""
    if isinstance(value, str) and value.endswith("%"):
        share = _value(value[:-1].strip())
        if isinstance(share, (int, float)) and not isinstance(share, bool):
            return share / 100
    return value
