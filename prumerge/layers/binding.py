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

    What other code has put in the place of such a method in the meantime stays there, and finds the module's
    own method behind it. Pickles as None: a model that was saved comes back without it. A copied model has
    one of its own.
    """

    holder: ClassVar[str]
    """The attribute by which a module finds what answers for it."""

    def __init__(self) -> None:
        self.answers = True
        """Until it is unbound."""
        self._own: list[tuple[nn.Module, dict[str, Any], dict[str, Any]]] = []

    def bind(self, module: nn.Module, *names: str, does: str | None = None) -> dict[str, Any]:
        """Answer calls of these methods of a module, as far as it has them; gives them as they were.

        They are answered by the methods of the same name, or by `does` with the module as first argument.
        """
        before = {name: getattr(module, name) for name in names if hasattr(module, name)}
        own = {name: vars(module)[name] for name in before if name in vars(module)}
        self._own.append((module, before, own))
        for name in before:
            setattr(module, name, _answered(module, name, self.holder, does))
        setattr(module, self.holder, self)
        return before

    def unbind(self) -> None:
        """Give all modules their own methods back; doing it twice is harmless."""
        self.answers = False
        left = []
        for module, before, own in self._own:
            there = {name: vars(module).get(name) for name in before}
            taken = [
                name
                for name, method in there.items()
                if getattr(method, "_prumerge_holder", None) != self.holder
            ]
            for name in set(before) - set(taken):
                vars(module).pop(name)
                if name in own:
                    setattr(module, name, own[name])
            if taken:  # behind what others have put there our methods are still called, and pass calls on
                left.append((module, before, own))
            else:
                vars(module).pop(self.holder, None)
        self._own = left

    def passed(self, module: nn.Module, name: str) -> Any:
        """A module's own method, for calls that come after all was given back."""
        return next(before[name] for other, before, _ in self._own if other is module)

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
        bound = getattr(self, holder)
        if not bound.answers:
            return bound.passed(self, name)(*args, **kwargs)
        given = (self, *args) if does else args
        return getattr(bound, does or name)(*given, **kwargs)

    method._prumerge_holder = holder  # type: ignore[attr-defined]
    return types.MethodType(method, module)
