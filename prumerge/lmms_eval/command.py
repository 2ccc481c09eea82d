"""lmms-eval's own command line, with an exit code that is true: it ends with 0 whatever became of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from prumerge.errors import PrumergeError


def run(arguments: Sequence[str]) -> int:
    """Run lmms-eval with these arguments; 0 if every evaluation that they ask for has results, else 1.

    Raises PrumergeError where one raised it, after lmms-eval has shown where.
    """
    from lmms_eval import __main__ as theirs
    from lmms_eval.cli.dispatch import main

    single, given = theirs.cli_evaluate_single, sys.argv
    failures: list[BaseException | None] = []

    def watched(args: Any) -> Any:
        try:
            results = single(args)
        except SystemExit:
            if not str(args.tasks).startswith("list"):
                failures.append(None)
            raise
        except BaseException as error:
            failures.append(error)
            raise
        if results[0] is None and int(os.environ.get("RANK", 0)) == 0:
            failures.append(None)
        return results

    theirs.cli_evaluate_single, sys.argv = watched, ["lmms-eval", *arguments]
    try:
        main()
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise
    finally:
        theirs.cli_evaluate_single, sys.argv = single, given
    for error in failures:
        if isinstance(error, PrumergeError):
            raise error
    return 1 if failures else 0
