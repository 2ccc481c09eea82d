"""The word on the sign: free text, as TextVQA, without OCR tokens in the prompt."""

from prumerge.evaluate.tasks._drawn import MAX_NEW_TOKENS, OPTIONS, scenes
from prumerge.evaluate.tasks._scores import mean_score, vqa_score
from prumerge.evaluate.tasks._task import Task

TASK = Task(
    mirrors="TextVQA, https://textvqa.org",
    measure="VQA accuracy",
    read=scenes("reading"),
    score=vqa_score,
    summary=mean_score,
    options=OPTIONS,
    max_new_tokens=MAX_NEW_TOKENS,
)
