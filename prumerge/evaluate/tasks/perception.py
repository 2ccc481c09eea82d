"""Two questions on one picture, one yes and one no, as MME."""

from collections.abc import Sequence

from prumerge.evaluate.scoring import mme, mme_yes_or_no
from prumerge.evaluate.tasks._drawn import MAX_NEW_TOKENS, OPTIONS, scenes
from prumerge.evaluate.tasks._task import Question, Scored, Task


def score(question: Question, prediction: str) -> float:
    return float(mme_yes_or_no(prediction) == question.gold[0])


def summary(records: Sequence[Scored]) -> float:
    return mme((record.split, record.group, record.score) for record in records)


TASK = Task(
    mirrors="MME, https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models",
    measure="accuracy + acc+, summed over subtasks",
    read=scenes("perception"),
    score=score,
    summary=summary,
    options=OPTIONS,
    max_new_tokens=MAX_NEW_TOKENS,
)
