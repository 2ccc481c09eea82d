"""Tables of one result; where that is missing, a line that says what makes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def of(name: str) -> Callable[[Callable[[Any], str]], Callable[[], str]]:
    """A table that is given `benchmarks/results/NAME.json`."""

    def decorate(table: Callable[[Any], str]) -> Callable[[], str]:
        @wraps(table)
        def written() -> str:
            path = RESULTS / f"{name}.json"
            if not path.exists():
                return f"(waits for `benchmarks/{name}.py`)"
            return table(json.loads(path.read_text()))

        return written

    return decorate
