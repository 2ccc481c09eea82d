"""What waits to be done together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Waiting(Generic[Item]):
    """A queue that is taken from in batches of one kind."""

    def __init__(self, most: int, seconds: float, kind: Callable[[Item], Hashable]) -> None:
        """A batch has at most `most` items of one `kind`; for more of them it waits so many seconds."""
        self.most, self.seconds, self.kind = most, seconds, kind
        self._items: list[Item] = []
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        self._items.append(item)
        self._some.set()

    def discard(self, item: Item) -> None:
        """Take an item back, if it still waits."""
        self._items = [one for one in self._items if one is not item]

    async def take(self) -> list[Item]:
        """The next batch: the item that waited longest, and others of its kind, in order."""
        while not self._items:
            self._some.clear()
            await self._some.wait()
        if len(self._items) < self.most:
            await asyncio.sleep(self.seconds)
        if not self._items:  # by now all were taken back
            return await self.take()
        kind = self.kind(self._items[0])
        batch = [item for item in self._items if self.kind(item) == kind][: self.most]
        taken = set(map(id, batch))
        self._items = [item for item in self._items if id(item) not in taken]
        return batch
