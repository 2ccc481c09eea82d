"""From a folder on the user's disk to the questions of a task: which layout it is, and how many are asked."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeAlias

from prumerge.errors import PrumergeError, short, unknown
from prumerge.evaluate.tasks._rows import File, Row
from prumerge.evaluate.tasks._task import Question, Shown, Source
from prumerge.loading.paths import existing, shown

Asked: TypeAlias = tuple[Shown, Question]
"""A question, and what is shown with it."""


@dataclass(frozen=True)
class Layout:
    """One of the ways in which a benchmark lies on disk."""

    files: tuple[str, ...]
    """Patterns of the files that tell it, relative to the folder; the first that is there is read."""
    read: Callable[[Sequence[Path]], list[Row]]
    """From these files to rows, with the same fields whatever the layout."""
    published: str
    """Where one gets it."""


def reader(
    task: str,
    layouts: Sequence[Layout],
    questions: Callable[..., Iterable[Asked]],
    folders: Sequence[str] = (),
    options: Mapping[str, tuple[str, ...]] | None = None,
) -> Callable[[Source], Iterator[tuple[Shown, list[Question]]]]:
    """A task's `read`: the rows of the first layout that is found, made to questions, as many as are wanted.

    It is looked for in the folder, then in a folder inside it that is named like the task or one of
    `folders`. `questions` takes the rows, and a value for each of `options`: the first where the user names
    none.
    """

    def read(source: Source) -> Iterator[tuple[Shown, list[Question]]]:
        chosen = _chosen(task, source.options, options or {})
        rows = _found(task, source.data, layouts, [task, *folders])
        asked = list(questions(rows, **chosen))
        _check_names(task, asked)
        asked = some(asked, source.count)
        for show, question in asked:
            if isinstance(show, File) and not show.path.exists():
                raise PrumergeError(
                    f"{task} asks about {question.picture}, but there is no {shown(show.path)}; "
                    "put its pictures or clips there"
                )
        return _by_picture(asked)

    return read


def beside(folder: Path, names: Sequence[str], published: str) -> Path:
    """The first of these files or folders that lies in a folder. Raises PrumergeError if none does."""
    for name in names:
        found = sorted(folder.glob(name)) if "*" in name else [folder / name]
        if found and found[0].exists():
            return found[0]
    raise PrumergeError(f"{shown(folder)} lacks {names[0]}, which is published at {published}")


def some(asked: Sequence[Asked], count: int | None) -> list[Asked]:
    """The first `count` questions at most, as many of each split as can be, groups whole, in their order.

    Raises PrumergeError where that leaves a split without any.
    """
    if count is None:
        return list(asked)
    units: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for place, (_, question) in enumerate(asked):
        unit = f"group {question.group}" if question.group else f"question {question.id}"
        units[question.split].setdefault(unit, []).append(place)
    left = {split: deque(members.values()) for split, members in units.items()}
    least = sum(len(members[0]) for members in left.values())
    if count < least:
        groups = f" of whole groups in {len(left)} splits" if least > 1 else ""
        raise PrumergeError(f"{count} questions are too few; ask at least {least}{groups}")
    taken: list[int] = []
    while left:
        for split in list(left):
            if not left[split] or len(taken) + len(left[split][0]) > count:
                del left[split]
            else:
                taken += left[split].popleft()
    return [asked[place] for place in sorted(taken)]


def _found(task: str, data: Path | None, layouts: Sequence[Layout], folders: Sequence[str]) -> list[Row]:
    """The rows of the first layout that is in a folder, or that a file is of."""
    if data is None:
        raise PrumergeError(f"{task} reads what is on your disk; give its folder: {_known(layouts)}")
    place = existing(data, "folder of a benchmark")
    for layout, pattern in ((one, pattern) for one in layouts for pattern in one.files):
        if place.is_file():
            files = [place] if _is_of(place, pattern) else []
        else:
            homes = [place, *(home for home in _inside(place, folders))]
            files = next((files for home in homes if (files := sorted(home.glob(pattern)))), [])
        if files:
            rows = layout.read(files)
            if not rows:
                raise PrumergeError(f"{shown(files[0])} holds no questions; get a whole copy")
            return rows
    raise PrumergeError(f"{shown(place)} holds nothing that {task} is read from: {_known(layouts)}")


def _is_of(file: Path, pattern: str) -> bool:
    """Whether a file that the user names is of a layout: any TSV file may have a name of its own."""
    return fnmatch(file.name, Path(pattern).name) or file.suffix == Path(pattern).suffix == ".tsv"


def _inside(folder: Path, names: Sequence[str]) -> list[Path]:
    wanted = {name.casefold() for name in names}
    return sorted(one for one in folder.iterdir() if one.is_dir() and one.name.casefold() in wanted)


def _known(layouts: Sequence[Layout]) -> str:
    each = [f"{layout.files[0]} ({layout.published})" for layout in layouts]
    return ", ".join(each[:-1]) + f" or {each[-1]}" if len(each) > 1 else each[0]


def _chosen(task: str, given: Mapping[str, str], options: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    for name, value in given.items():
        if name not in options:
            known = ", ".join(options) or "none"
            raise PrumergeError(f"{task} has no option {short(name)!r}; its options are: {known}")
        if value not in options[name]:
            raise PrumergeError(unknown(f"{name} of {task}", value, options[name]))
    return {name: given.get(name, values[0]) for name, values in options.items()}


def _check_names(task: str, asked: Sequence[Asked]) -> None:
    seen: set[str] = set()
    for _, question in asked:
        if question.id in seen:
            raise PrumergeError(
                f"{task} has two questions {short(question.id)}; something is in its files twice, get a "
                "whole copy"
            )
        seen.add(question.id)


def _by_picture(asked: Sequence[Asked]) -> Iterator[tuple[Shown, list[Question]]]:
    """Each picture once, in the order of their first questions."""
    about: dict[str, tuple[Shown, list[Question]]] = {}
    for show, question in asked:
        about.setdefault(question.picture, (show, []))[1].append(question)
    return iter(about.values())


def without_prompt(text: str) -> str:
    """A question as LLaVA's files have it, without the line that says how to answer."""
    return re.sub(r"\nAnswer (the question|with)[^\n]*$", "", text)
