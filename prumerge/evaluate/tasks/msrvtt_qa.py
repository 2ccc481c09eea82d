"""MSRVTT-QA: open questions about clips of ten to thirty seconds, answered in a word."""

from prumerge.evaluate.tasks._clips import open_question

TASK = open_question(
    "msrvtt_qa",
    "MSRVTT-QA, https://doi.org/10.1145/3123266.3123427, asked as in Video-LLaVA",
    "MSRVTT_Zero_Shot_QA",
)
