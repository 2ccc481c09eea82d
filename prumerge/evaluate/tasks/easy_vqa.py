"""Easy-VQA: one coloured shape in each of 1,000 small pictures, and 13 different answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from prumerge.errors import MissingPackage
from prumerge.evaluate.tasks._prompts import OPTIONS, asked
from prumerge.evaluate.tasks._scores import mean_score, vqa_score
from prumerge.evaluate.tasks._task import Question, Shown, Source, Task
from prumerge.loading.images import open_image

SIDE = 336
"""Pixels that the pictures of 64 x 64 are enlarged to."""


def read(source: Source) -> Iterator[tuple[Shown, list[Question]]]:
    """The questions of the test set, picture by picture."""
    try:
        import easy_vqa
    except ImportError:
        raise MissingPackage("this needs easy_vqa; install it with: pip install easy-vqa") from None
    paths = easy_vqa.get_test_image_paths()
    by_picture: dict[int, list[Question]] = {}
    for number, (text, answer, picture) in enumerate(zip(*easy_vqa.get_test_questions(), strict=True)):
        if number == source.count:
            break
        question = Question("easy_vqa", f"{number:04}", str(picture), asked(text, source), (answer,))
        by_picture.setdefault(picture, []).append(question)
    for picture, questions in by_picture.items():
        yield partial(_shown, Path(paths[picture])), questions


def _shown(path: Path) -> list[Image.Image]:
    return [open_image(path).resize((SIDE, SIDE), Image.Resampling.BICUBIC)]


TASK = Task(
    mirrors="Easy-VQA, https://github.com/vzhou842/easy-VQA",
    measure="accuracy",
    read=read,
    score=vqa_score,
    summary=mean_score,
    options=OPTIONS,
)
