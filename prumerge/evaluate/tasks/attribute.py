"""The colour or the shape of something: free text, as VQAv2."""

from prumerge.evaluate.tasks._drawn import MAX_NEW_TOKENS, OPTIONS, scenes
from prumerge.evaluate.tasks._scores import mean_score, vqa_score
from prumerge.evaluate.tasks._task import Task

TASK = Task(
    mirrors="VQAv2, https://visualqa.org",
    measure="VQA accuracy",
    read=scenes("attribute"),
    score=vqa_score,
    summary=mean_score,
    options=OPTIONS,
    max_new_tokens=MAX_NEW_TOKENS,
)
