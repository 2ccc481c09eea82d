"""What was computed last, within a bound in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Sized(Protocol):
    """Something that takes memory."""

    @property
    def nbytes(self) -> int:
        """How much."""


Value = TypeVar("Value", bound=Sized)


class Cache(Generic[Value]):
    """The values that were asked for last; those that were not go first."""

    def __init__(self, most: int) -> None:
        self.most, self.nbytes = most, 0
        self._held: OrderedDict[Hashable, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, if it is still there."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: Hashable, value: Value) -> None:
        """Remember a value, unless it alone is larger than the bound."""
        if value.nbytes > self.most or key in self._held:
            return
        self._held[key] = value
        self.nbytes += value.nbytes
        while self.nbytes > self.most:
            _, dropped = self._held.popitem(last=False)
            self.nbytes -= dropped.nbytes
