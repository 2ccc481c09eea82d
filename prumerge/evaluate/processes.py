"""Several processes, as torchrun starts them, that answer together: each about its own pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # with processes that have more to answer


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many."""

    rank: int = 0
    count: int = 1

    @classmethod
    def of_environment(cls) -> Processes:
        """As the variables say that torchrun sets."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def file(self) -> int | None:
        """The number of its file of answers; None where it is alone."""
        return self.rank if self.count > 1 else None

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """What of them falls to this process."""
        return things[self.rank :: self.count]

    def meet(self) -> bool:
        """Wait for all processes; False where there is no other."""
        if self.count == 1:
            return False
        from torch import distributed

        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=_PATIENCE)
        distributed.barrier()
        return True

    def part(self) -> None:
        """Once all have met for the last time."""
        from torch import distributed

        if self.count > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


ALONE = Processes()
