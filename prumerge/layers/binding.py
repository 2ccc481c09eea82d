"""Methods of single modules that somebody answers in their place for a while."""

from __future__ import annotations

import copy
import functools
import types
from typing import Any, ClassVar, TypeVar

from torch import nn

Own = TypeVar("Own", bound="Bound")


class Bound:
    """Something that answers for a few modules until `unbind()`; their classes and other models never notice.

    Pickles as None: a model that was saved comes back without it. A copied model has one of its own.
    """

    holder: ClassVar[str]
    """The attribute by which a module finds what answers for it."""

    def __init__(self) -> None:
        self._own: list[tuple[nn.Module, tuple[str, ...], dict[str, Any]]] = []

    def bind(self, module: nn.Module, *names: str, does: str | None = None) -> dict[str, Any]:
        """Answer calls of these methods of a module, as far as it has them; gives them as they were.

        They are answered by the methods of the same name, or by `does` with the module as first argument.
        """
        before = {name: getattr(module, name) for name in names if hasattr(module, name)}
        own = {name: vars(module)[name] for name in before if name in vars(module)}
        self._own.append((module, tuple(before), own))
        for name in before:
            setattr(module, name, _answered(module, name, self.holder, does))
        setattr(module, self.holder, self)
        return before

    def unbind(self) -> None:
        """Give all modules their own methods back; doing it twice is harmless."""
        for module, names, own in self._own:
            for name in (*names, self.holder):
                vars(module).pop(name, None)
            vars(module).update(own)
        self._own.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self: Own, memo: dict[int, Any]) -> Own:
        memo[id(self)] = new = object.__new__(type(self))
        vars(new).update(copy.deepcopy(vars(self), memo))
        return new


def _answered(module: nn.Module, name: str, holder: str, does: str | None) -> types.MethodType:
    """A method of this one module that looks like its class's own and asks what `holder` names."""

    @functools.wraps(getattr(type(module), name))
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = (self, *args) if does else args
        return getattr(getattr(self, holder), does or name)(*given, **kwargs)

    return types.MethodType(method, module)
