"""The command line: a command is a file, and imports what it needs when it runs: help comes at once.

Results go to stdout, progress and notes to stderr. What a user can mend is one sentence and exit code 2; any
other error is a fault in code, and shows where.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from prumerge import __version__
from prumerge.cli.options import Context
from prumerge.errors import PrumergeError

COMMANDS = (
    "answer",
    "show",
    "plot_attention",
    "methods",
    "families",
    "samples",
    "demo",
    "tasks",
    "evaluate",
    "calibrate",
    "rescore",
    "lmms_eval",
    "lmms_task",
    "train",
    "serve",
    "export_lm",
    "roofline",
    "bench",
)
"""Files of this folder, in the order of the help; a file holds a function of its name, and perhaps SETTINGS
of typer's for it."""

# What typer says of a wrong command line: its own class, or in older versions click's.
UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    rich_markup_mode=None,  # plain help starts three times faster
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def start(
    context: Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Prune and merge the visual tokens of vision-language models."""
    if version:
        print(f"prumerge {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


for _name in COMMANDS:
    _module = import_module(f"prumerge.cli.{_name}")
    app.command(context_settings=getattr(_module, "SETTINGS", None))(getattr(_module, _name))


def main() -> None:
    """Run a command, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may lack letters that a model writes
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            code = app(prog_name="prumerge", standalone_mode=False)
        sys.stdout.flush()
    except (PrumergeError, UsageError) as error:
        if os.environ.get("PRUMERGE_TRACEBACK"):
            raise
        print(f"prumerge: {_sentence(error)}", file=sys.stderr)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # whoever read has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _sentence(error: Any) -> str:
    """What is wrong, in one line; of a wrong command line also where its help is."""
    if isinstance(error, PrumergeError):
        return " ".join(str(error).splitlines())
    message = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "prumerge"
    return f"{message}; see {command} --help"


_show = warnings.showwarning


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any
) -> None:
    """What this package warns of is a note to the user; what others warn of is left as it is."""
    if Path(__file__).parent.parent in Path(filename).parents:
        print(f"prumerge: {message}", file=sys.stderr)
    else:
        _show(message, category, filename, lineno, *rest)
