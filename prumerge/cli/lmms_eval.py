"""`prumerge lmms-eval`: lmms-eval's command, that fails where a run failed."""

from __future__ import annotations

import typer

from prumerge.cli.options import Context
from prumerge.cli.output import need

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def lmms_eval(context: Context) -> None:
    """Run lmms-eval; a failed run exits with 1.

    All arguments are lmms-eval's own (its help: prumerge lmms-eval -- --help); --model prumerge is this
    package.
    """
    need("lmms_eval", "lmms-eval")
    from prumerge.lmms_eval.command import run

    if code := run(context.args):
        raise typer.Exit(code)
