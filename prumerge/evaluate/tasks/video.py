"""Clips of eight frames: what moves, where to, and what colour or shape something has."""

from collections.abc import Iterator
from functools import partial

from PIL import Image

from prumerge.evaluate.tasks._drawn import MAX_NEW_TOKENS, OPTIONS, QUESTIONS, is_unseen, question
from prumerge.evaluate.tasks._scores import mean_score, vqa_score
from prumerge.evaluate.tasks._task import Question, Shown, Source, Task
from prumerge.tiny.benchmarks import video
from prumerge.tiny.clips import FRAMES, clip


def read(source: Source) -> Iterator[tuple[Shown, list[Question]]]:
    for drawn, items in video(source.count or QUESTIONS, is_unseen(source)):
        if items:
            yield partial(_shown, drawn.seed), [question(item) for item in items]


def _shown(seed: int) -> list[Image.Image]:
    return [frame.image for frame in clip(seed).frames]


TASK = Task(
    mirrors="clips of 8 frames",
    measure="accuracy",
    read=read,
    score=vqa_score,
    summary=mean_score,
    options=OPTIONS,
    max_new_tokens=MAX_NEW_TOKENS,
    frames=FRAMES,
)
