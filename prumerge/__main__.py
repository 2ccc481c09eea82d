"""`python -m prumerge`, and where the command starts: a Ctrl-C is silent from here on."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run the command line, and exit with 130 once somebody pressed Ctrl-C, whatever became of it on its way:
    imports that are broken off raise what they like."""
    pressed = False

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(number, frame)

    def unraisable(what: Any) -> None:  # where Python would go on
        if pressed:
            os._exit(130)
        sys.__unraisablehook__(what)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, press)
        sys.unraisablehook = unraisable
    try:
        from prumerge.cli import main as run

        run()
    except BaseException:
        if pressed:
            sys.exit(130)
        raise


if __name__ == "__main__":
    main()
