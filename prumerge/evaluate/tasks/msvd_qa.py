"""MSVD-QA: open questions about short clips, answered in a word."""

from prumerge.evaluate.tasks._clips import open_question

TASK = open_question(
    "msvd_qa",
    "MSVD-QA, https://doi.org/10.1145/3123266.3123427, asked as in Video-LLaVA",
    "MSVD_Zero_Shot_QA",
)
