"""What tasks share whose pictures are drawn: their questions, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image

from prumerge.errors import PrumergeError, short
from prumerge.evaluate.tasks._task import Question, Shown, Source
from prumerge.tiny.benchmarks import Item, drawn, pictures

QUESTIONS = 504
"""Where no number is asked for."""
MAX_NEW_TOKENS = 12
OPTIONS = {"unseen": "yes: pictures with a font and coloured shapes that training never showed"}


def scenes(name: str) -> Callable[[Source], Iterator[tuple[Shown, list[Question]]]]:
    """How the questions of one task are read: scene by scene, each drawn again when it is shown."""

    def read(source: Source) -> Iterator[tuple[Shown, list[Question]]]:
        for scene, items in pictures(source.count or QUESTIONS, (name,), is_unseen(source)):
            yield partial(_shown, scene.seed), [question(item) for item in items]

    return read


def is_unseen(source: Source) -> bool:
    """Whether what is asked about was kept from training. Raises PrumergeError for neither yes nor no."""
    said = source.options.get("unseen", "no")
    if said not in ("yes", "no"):
        raise PrumergeError(f"the option unseen is yes or no, not {short(said)!r}")
    return said == "yes"


def question(item: Item) -> Question:
    """A drawn question as any other."""
    return Question(
        task=item.benchmark,
        id=item.id,
        picture=str(item.picture),
        text=item.question,
        gold=(item.gold,),
        split=item.split,
        group=item.group,
        options=item.options,
    )


def _shown(seed: int) -> list[Image.Image]:
    return [drawn(seed).image]
