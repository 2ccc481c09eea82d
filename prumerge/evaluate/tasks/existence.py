"""Is it there? Half yes; absent things are random, frequent ones, or near misses, as POPE."""

from collections.abc import Sequence

from prumerge.evaluate.scoring import f1, yes_or_no
from prumerge.evaluate.tasks._drawn import MAX_NEW_TOKENS, OPTIONS, scenes
from prumerge.evaluate.tasks._task import Question, Scored, Task


def score(question: Question, prediction: str) -> float:
    return float(yes_or_no(prediction) == question.gold[0])


def summary(records: Sequence[Scored]) -> float:
    splits = sorted({record.split for record in records})
    pairs = {
        split: [(yes_or_no(one.prediction), one.gold[0]) for one in records if one.split == split]
        for split in splits
    }
    return sum(f1(pairs[split])["f1"] for split in splits) / len(splits)


TASK = Task(
    mirrors="POPE, https://github.com/AoiDragon/POPE",
    measure="mean F1 of 3 splits",
    read=scenes("existence"),
    score=score,
    summary=summary,
    options=OPTIONS,
    max_new_tokens=MAX_NEW_TOKENS,
)
