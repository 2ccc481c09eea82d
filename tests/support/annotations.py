"""How annotations are checked while testing: an int is a float, as everywhere in Python.

jaxtyping's own decorator binds the arguments of each call and checks them twice. Here beartype checks a call,
in a context of jaxtyping's, in which an axis has one length, where shapes are annotated.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))

_decorate = jaxtyping.jaxtyped
_shapes = _decorate("context")
_checks: dict[CodeType, Callable[..., Any]] = {}  # of functions that are defined inside another
_called = threading.local()


def install() -> None:
    """Check the annotations of all that is imported of prumerge from now on."""
    jaxtyping.jaxtyped = _jaxtyped  # type: ignore[assignment]
    jaxtyping.install_import_hook("prumerge", "annotations.check")


def _jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    return functools.partial(_checked, decorate=_decorate(typechecker=typechecker))


def _checked(function: Any, decorate: Callable[[Any], Any]) -> Any:
    """A function whose calls are checked, or a class whose instances are as they are made."""
    if isinstance(function, FunctionType):
        return _nested(function, decorate) if "<locals>" in function.__qualname__ else _typed(function)
    made: Any = function
    if dataclasses.is_dataclass(function) and "__init__" in vars(function):
        made.__init__ = _typed(made.__init__)
    return made


def _typed(function: Any) -> Any:
    """The function with its annotations checked."""
    known = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    known.__kwdefaults__, known.__qualname__ = function.__kwdefaults__, function.__qualname__
    known.__annotations__ = {name: _type(each, known) for name, each in function.__annotations__.items()}
    typed = check(known)
    shaped = any("Tensor," in str(each) or "ndarray," in str(each) for each in known.__annotations__.values())

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        if not shaped:
            return typed(*args, **kwargs)
        with _shapes:
            return typed(*args, **kwargs)

    return checked


def _type(annotation: Any, function: FunctionType) -> Any:
    """What an annotation says; of names that are imported for mypy alone nothing is checked."""
    try:
        return eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation
    except NameError:
        return Any


def _nested(function: FunctionType, decorate: Callable[[Any], Any]) -> Any:
    """A function inside another is defined whenever the other runs. What checks it is made once: that takes a
    hundred times as long as to check."""
    if function.__code__ not in _checks:
        _checks[function.__code__] = decorate(_stand_in(function))
    check = _checks[function.__code__]

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
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
