"""Questions of one's own: a .jsonl file with an image, a question and what is right in each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from prumerge.errors import PrumergeError, short
from prumerge.evaluate.scoring import accuracy, all_right
from prumerge.evaluate.tasks._prompts import OPTIONS, asked
from prumerge.evaluate.tasks._scores import mean_score, vqa_score
from prumerge.evaluate.tasks._task import Question, Scored, Shown, Source, Task
from prumerge.loading.images import open_image

_TEXTS = ("image", "question", "answer", "id", "split", "group")


def read(source: Source) -> Iterator[tuple[Shown, list[Question]]]:
    """Pictures in the order in which they are first asked about; their paths are relative to the file."""
    assert source.data is not None
    file = _file(source.data)
    by_picture: dict[str, list[Question]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PrumergeError(f"{str(file)!r} cannot be read as text ({error}); name another") from None
    count = 0
    for number, line in enumerate(lines, 1):
        if not line.strip() or count == source.count:
            continue
        count += 1
        row = _row(line, f"{file}, line {number}")
        if not (file.parent / row["image"]).is_file():
            raise PrumergeError(f"{file}, line {number}: there is no picture {short(row['image'])!r}")
        question = Question(
            task="custom",
            id=row.get("id", str(number)),
            picture=row["image"],
            text=asked(row["question"], source),
            gold=tuple(row["answers"] if "answers" in row else [row["answer"]]),
            split=row.get("split", ""),
            group=row.get("group", ""),
        )
        by_picture.setdefault(question.picture, []).append(question)
    for picture, questions in by_picture.items():
        yield partial(_shown, file.parent / picture), questions


def _file(place: Path) -> Path:
    """The file itself, or the only one of a folder."""
    if place.is_file():
        return place
    found = sorted(place.glob("*.jsonl"))
    if len(found) != 1:
        raise PrumergeError(
            f"{str(place)!r} holds {len(found) or 'no'} .jsonl files; name the file of questions by --data"
        )
    return found[0]


def _row(line: str, place: str) -> dict[str, Any]:
    """What a line holds. PrumergeError, naming it, for what is no question."""
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise PrumergeError(f"{place} is no JSON object; write image, question and answer in each")
    row = {key: str(value) if key == "id" and type(value) is int else value for key, value in row.items()}
    if missing := [key for key in ("image", "question") if key not in row]:
        raise PrumergeError(f"{place}: {missing[0]} is missing; write image, question and answer in each")
    if ("answer" in row) == ("answers" in row):
        raise PrumergeError(f"{place}: write either answer, a text, or answers, a list of texts")
    if wrong := [key for key in _TEXTS if not isinstance(row.get(key, ""), str)]:
        raise PrumergeError(f"{place}: {wrong[0]} is a text, not {short(repr(row[wrong[0]]), 30)}")
    answers = row.get("answers", [""])
    if not isinstance(answers, list) or not answers or not all(isinstance(one, str) for one in answers):
        raise PrumergeError(f"{place}: answers are a list of texts, not {short(repr(answers), 30)}")
    if unknown := [key for key in row if key not in (*_TEXTS, "answers")]:
        raise PrumergeError(f"{place}: {short(unknown[0])!r} is not known; a line has {', '.join(_TEXTS)}")
    return row


def _shown(path: Path) -> list[Image.Image]:
    return [open_image(path)]


def details(records: Sequence[Scored]) -> dict[str, float]:
    """Percent right in each split, and of groups that are wholly right, where there are any."""
    splits = sorted({record.split for record in records if record.split})
    found = {split: accuracy(record.score for record in records if record.split == split) for split in splits}
    grouped = [(record.group, record.score) for record in records if record.group]
    return {**found, **({"groups wholly right": all_right(grouped)} if grouped else {})}


TASK = Task(
    mirrors="your own questions",
    measure="VQA accuracy; with one right answer exact match",
    read=read,
    score=vqa_score,
    summary=mean_score,
    details=details,
    data="a .jsonl file with image, question and answer (or answers), and if you like id, split, group",
    options=OPTIONS,
    judged=True,
)
