"""One of four letters, as ScienceQA."""

from prumerge.evaluate.tasks._drawn import MAX_NEW_TOKENS, OPTIONS, scenes
from prumerge.evaluate.tasks._scores import letter_score, mean_score
from prumerge.evaluate.tasks._task import Task

TASK = Task(
    mirrors="ScienceQA, https://scienceqa.github.io",
    measure="accuracy",
    read=scenes("choice"),
    score=letter_score,
    summary=mean_score,
    options=OPTIONS,
    max_new_tokens=MAX_NEW_TOKENS,
)
