"""Scores and summaries that several tasks have."""

from __future__ import annotations

from collections.abc import Sequence

from prumerge.evaluate.scoring import accuracy, letter, vqa
from prumerge.evaluate.tasks._task import Question, Scored


def vqa_score(question: Question, prediction: str) -> float:
    """By the answers of annotators; a single one is matched exactly, in VQA's normal form."""
    return vqa(prediction, question.gold)


def letter_score(question: Question, prediction: str) -> float:
    """1 for the right letter."""
    return float(letter(prediction, question.options) == question.gold[0])


def mean_score(records: Sequence[Scored]) -> float:
    """In percent."""
    return accuracy(record.score for record in records)
