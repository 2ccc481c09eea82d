"""Hard drawn scenes: many small objects, dense grids, counting to nine, three objects, one sign of two."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import count
from statistics import fmean

from PIL import Image

from prumerge.evaluate.scoring import accuracy
from prumerge.evaluate.tasks._drawn import MAX_NEW_TOKENS, QUESTIONS
from prumerge.evaluate.tasks._task import Question, Scored, Shown, Source, Task
from prumerge.tiny.hard import HELD_OUT, hard_scene
from prumerge.tiny.hard_questions import asked
from prumerge.tiny.scenes import Scene


def read(source: Source) -> Iterator[tuple[Shown, list[Question]]]:
    for scene, items in asked(map(drawn, count(HELD_OUT.start)), source.count or QUESTIONS):
        yield (
            partial(_shown, scene.seed),
            [
                Question(
                    task="hard",
                    id=f"{one.family}-{number:04}",
                    picture=str(scene.seed),
                    text=one.text,
                    gold=(one.answer,),
                    split=one.family,
                )
                for number, one in items
            ],
        )


@lru_cache(maxsize=64)
def drawn(seed: int) -> Scene:
    """The hard scene of this seed."""
    return hard_scene(seed)


def _shown(seed: int) -> list[Image.Image]:
    return [drawn(seed).image]


def score(question: Question, prediction: str) -> float:
    """1 for the right word or words, in any case."""
    return float(prediction.strip().rstrip(".").casefold() == question.gold[0])


def details(records: Sequence[Scored]) -> dict[str, float]:
    """Of each family of questions."""
    families: dict[str, list[float]] = defaultdict(list)
    for record in records:
        families[record.split].append(record.score)
    return {family: accuracy(scores) for family, scores in families.items()}


TASK = Task(
    mirrors="hard drawn scenes",
    measure="mean accuracy of 7 families of questions",
    read=read,
    score=score,
    summary=lambda records: fmean(details(records).values()),
    details=details,
    max_new_tokens=MAX_NEW_TOKENS,
)
