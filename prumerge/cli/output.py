"""What commands print and write: tables that fit the terminal, JSON, progress, files that are whole.

Results go to stdout, progress and notes to stderr. A pipe has no width: there a row is a line, however long.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prumerge.errors import MissingPackage, PrumergeError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""What a picture of pixels can be written as."""
CHARTS = (*PICTURES, ".pdf", ".svg")
"""What a chart can be written as."""

_GAP = 2  # between columns
_WORDS = 24  # a column of words is not made narrower than this
_NUMBER = re.compile(r"[-+]?\d")


def width() -> int | None:
    """Columns of the terminal; None where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def note(message: str) -> None:
    """Something to know beside the result, on stderr."""
    print(f"prumerge: {message}", file=sys.stderr)


def say(*sentences: str) -> None:
    """Print each sentence, in a terminal broken between words."""
    for sentence in sentences:
        print(wrapped(sentence))


def wrapped(text: str, indent: str = "") -> str:
    """Text in lines that fit the terminal; one line where there is none. Words and numbers stay whole."""
    columns = width()
    if columns is None:
        return indent + text
    lines = textwrap.wrap(
        text,
        columns,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def print_list(entries: Sequence[tuple[str, str]]) -> None:
    """Terms, and below each what it means."""
    for term, meaning in entries:
        print(wrapped(term), wrapped(meaning, "    "), sep="\n")


# tables


def print_table(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, keys: int = 1, title: str | None = None
) -> None:
    """A table. Where it is wider than the terminal its columns are made narrower by wrapping words, and if
    that is not enough it is printed in several parts, the first `keys` columns repeated in each."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    available = width()
    rows = [[breakable(cell) for cell in row] for row in rows] if available else rows
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    numeric = [is_numeric(cells) for cells in columns]
    console = Console(width=available or 10_000, highlight=False)
    for part in layout(names, columns, keys, available):
        table = Table(box=SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        table.title, table.title_justify, title = title, "left", None
        for column, size in part:
            side = "right" if numeric[column] else "left"
            table.add_column(Text(names[column]), justify=side, width=size)  # type: ignore[arg-type]
        for row in rows:
            table.add_row(*(Text(row[column]) for column, _ in part))
        with console.capture() as captured:
            console.print(table)
        print(*(line.rstrip() for line in captured.get().splitlines()), sep="\n", end="\n\n")


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether all cells that are not empty begin with a number."""
    return any(cells) and all(_NUMBER.match(cell) for cell in cells if cell)


def layout(
    names: Sequence[str], columns: Sequence[Sequence[str]], keys: int, available: int | None
) -> list[list[tuple[int, int]]]:
    """The parts of a table that fit side by side: for each its columns with their widths."""
    natural, least = [], []
    for name, cells in zip(names, columns, strict=True):
        lines = [line for cell in cells for line in cell.split("\n")]
        content = max(map(len, lines), default=0)
        shortest = content if is_numeric(cells) else min(content, max(_WORDS, longest_word(lines)))
        natural.append(max(len(name), content))
        least.append(max(longest_word([name]), shortest))
    if available is None:
        return [list(enumerate(natural))]
    parts = [list(range(keys))]
    for column in range(keys, len(names)):
        if taken(least, [*parts[-1], column]) > available and len(parts[-1]) > keys:
            parts.append(list(range(keys)))
        parts[-1].append(column)
    return [_widened(part, least, natural, available) for part in parts]


def taken(widths: Sequence[int], part: Sequence[int]) -> int:
    """Characters that these columns take side by side."""
    return sum(widths[column] for column in part) + _GAP * (len(part) - 1)


def longest_word(lines: Sequence[str]) -> int:
    return max((len(word) for line in lines for word in line.split()), default=0)


def breakable(cell: str, longest: int = _WORDS) -> str:
    """A long word, such as a method with its options, in lines that end behind its marks."""
    if longest_word([cell]) <= longest:
        return cell
    lines = [""]
    for piece in re.findall(r"[^\s,:+]*[\s,:+]?", cell):
        if len(lines[-1]) + len(piece.rstrip()) > longest and lines[-1]:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _widened(
    part: Sequence[int], least: Sequence[int], natural: Sequence[int], available: int
) -> list[tuple[int, int]]:
    """The columns with what is left of the terminal, first those that want most."""
    sizes, spare = {column: least[column] for column in part}, available - taken(least, part)
    for column in sorted(part, key=lambda column: least[column] - natural[column]):
        more = max(0, min(spare, natural[column] - least[column]))
        sizes[column] += more
        spare -= more
    return list(sizes.items())


# files


def check_target(path: Path, kinds: Sequence[str]) -> None:
    """Raise PrumergeError if no file of these kinds can be written there, before any work is done."""
    example = " or ".join(filter(None, [", ".join(kinds[:2] if len(kinds) > 2 else kinds[:-1]), kinds[-1]]))
    if path.is_dir():
        raise PrumergeError(
            f"{str(path)!r} is a folder; name a file in it, such as {path / f'kept{kinds[0]}'}"
        )
    if path.suffix.lower() not in kinds:
        raise PrumergeError(f"{str(path)!r} must end in {example}")
    _check_folder(path.parent)


def check_folder(path: Path) -> None:
    """Raise PrumergeError if no files can be written to this folder, which need not be there yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    _check_folder(path)


def _check_folder(path: Path) -> None:
    if not path.exists():
        raise PrumergeError(f"the folder {str(path)!r} does not exist; make it first")
    if not path.is_dir():
        raise PrumergeError(f"{str(path)!r} is a file, not a folder; name another place for the output")
    try:
        handle, probe = tempfile.mkstemp(prefix=".prumerge-", dir=path)
    except OSError as error:
        raise PrumergeError(cannot_write(path, error)) from None
    os.close(handle)
    Path(probe).unlink()


def cannot_write(path: Path, error: OSError) -> str:
    return f"{path} cannot be written ({error.strerror or 'the file system refuses'}); name another place"


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` only when all went well: nothing is ever half written.

    Raises PrumergeError, naming `path`, for whatever the file system refuses.
    """
    draft: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=".prumerge-", dir=path.parent)
        os.close(handle)
        draft = Path(name)
        yield draft
        draft.chmod(0o644)
        os.replace(draft, path)
    except OSError as error:
        raise PrumergeError(cannot_write(path, error)) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def need(package: str, extra: str) -> None:
    """Say how to install what a command needs beyond the core, before any work is done."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingPackage(f"this needs {package}; install it with: pip install 'prumerge[{extra}]'")


# progress


def status(message: str) -> Any:
    """A spinner on stderr while something takes its time; nothing where nobody looks."""
    from rich.console import Console

    return Console(stderr=True).status(f"{message} ...")


@contextmanager
def progress(message: str, made: Callable[[], int]) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time that is left, on stderr where somebody looks; it is told how much more is
    done, and how much there is in all.

    `made` says how much was made anew in all, which is less than was done where a run goes on.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        def render(self, task: Task) -> Text:
            left = (task.total or 0) - task.completed
            seconds = time_left(task.elapsed or 0, task.fields["made"], left)
            return Text("-:--:--" if seconds is None else clock(seconds), style="progress.remaining")

    console = Console(stderr=True)
    columns = (TextColumn(message), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        before = made()
        task = bar.add_task(message, made=0)
        yield lambda done, total: bar.update(task, advance=done, total=total, made=made() - before)


def time_left(elapsed: float, made: int, left: float) -> float | None:
    """Seconds until all is done, at the pace at which things were made so far; None before the first."""
    return elapsed / made * left if made else None


def clock(seconds: float) -> str:
    """Hours, minutes, seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
