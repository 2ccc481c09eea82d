"""The same choice four times with its options moved round, as MMBench: all four must be right."""

from collections.abc import Sequence

from prumerge.evaluate.scoring import all_right
from prumerge.evaluate.tasks._drawn import MAX_NEW_TOKENS, OPTIONS, scenes
from prumerge.evaluate.tasks._scores import letter_score
from prumerge.evaluate.tasks._task import Scored, Task


def summary(records: Sequence[Scored]) -> float:
    return all_right((record.group, record.score) for record in records)


TASK = Task(
    mirrors="MMBench, https://mmbench.opencompass.org.cn",
    measure="all rotations right",
    read=scenes("circular"),
    score=letter_score,
    summary=summary,
    options=OPTIONS,
    max_new_tokens=MAX_NEW_TOKENS,
)
