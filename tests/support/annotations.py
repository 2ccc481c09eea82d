"""How annotations are checked while testing: an int is a float, as everywhere in Python."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))

_decorate = jaxtyping.jaxtyped
_checks: dict[CodeType, Callable[..., Any]] = {}  # of functions that are defined inside another
_called = threading.local()


def install() -> None:
    """Check the annotations of all that is imported of prumerge from now on."""
    jaxtyping.jaxtyped = _jaxtyped  # type: ignore[assignment]
    jaxtyping.install_import_hook("prumerge", "annotations.check")


def _jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    return functools.partial(_checked, decorate=_decorate(typechecker=typechecker))


def _checked(function: Any, decorate: Callable[[Any], Any]) -> Any:
    """What `decorate` makes of a function.

    One inside another is defined whenever the other runs. What checks it is made once: that takes a hundred
    times as long as to check.
    """
    if not isinstance(function, FunctionType) or "<locals>" not in function.__qualname__:
        return decorate(function)
    if function.__code__ not in _checks:
        _checks[function.__code__] = decorate(_stand_in(function))
    check = _checks[function.__code__]

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _called.function = function
        return check(*args, **kwargs)

    return checked


def _stand_in(function: FunctionType) -> FunctionType:
    """A function of the same signature that runs whatever was called last, so that it keeps nothing alive."""
    called = _called  # in a cell, as globals are those of the function

    def run(*args: Any, **kwargs: Any) -> Any:
        running = called.function
        del called.function
        return running(*args, **kwargs)

    stand_in = FunctionType(run.__code__, function.__globals__, function.__name__, None, run.__closure__)
    stand_in.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    stand_in.__qualname__, stand_in.__module__ = function.__qualname__, function.__module__
    return stand_in
