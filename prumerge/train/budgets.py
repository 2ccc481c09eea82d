"""How many visual tokens a step of training keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prumerge.errors import PrumergeError, short


@dataclass(frozen=True)
class Budgets:
    """A list of budgets, one of which each step draws; or a range from the first to the last, in which twice
    as few are as likely (log-uniform). None at all: the method's own choice, every time."""

    counts: tuple[int, ...] = ()
    between: bool = False

    @classmethod
    def read(cls, text: str | None) -> Budgets:
        """From `36`, `36,144` or `16-144`. Raises PrumergeError for anything else."""
        if text is None:
            return cls()
        low, dash, high = text.partition("-")
        words = [low, high] if dash else text.split(",")
        numbers = [word.strip() for word in words]
        if not all(number.isdecimal() and int(number) for number in numbers):
            raise PrumergeError(
                "budgets are whole numbers of visual tokens, a list such as 36,144 or a range such as "
                f"16-144, not {short(text)!r}"
            )
        counts = tuple(map(int, numbers))
        if dash and counts[0] >= counts[1]:
            raise PrumergeError(f"a range of budgets goes from few to many, not {short(text)!r}")
        return cls(counts, bool(dash))

    def __str__(self) -> str:
        return ("-" if self.between else ",").join(map(str, self.counts)) or "auto"

    def at(self, seed: int, step: int) -> int | None:
        """The budget of a step: the same in every process, and after every restart."""
        if not self.counts:
            return None
        chance = np.random.default_rng((seed, step))
        if not self.between:
            return int(chance.choice(self.counts))
        low, high = self.counts
        return int(math.exp(chance.uniform(math.log(low), math.log(high + 1))))

    def typical(self) -> tuple[int | None, ...]:
        """The budgets to measure at: those of the list; of a range both ends and their geometric mean."""
        if not self.between:
            return tuple(dict.fromkeys(self.counts)) or (None,)
        low, high = self.counts
        return tuple(dict.fromkeys((low, round(math.sqrt(low * high)), high)))
