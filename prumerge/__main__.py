"""`python -m prumerge`, and where the command starts: a Ctrl-C is silent from here on."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from prumerge.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
