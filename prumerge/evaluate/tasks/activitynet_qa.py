"""ActivityNet-QA: open questions about long videos of what people do, answered in a word or a phrase."""

from prumerge.evaluate.tasks._clips import open_question

TASK = open_question(
    "activitynet_qa",
    "ActivityNet-QA, https://arxiv.org/abs/1906.02467, asked as in Video-LLaVA",
    "Activitynet_Zero_Shot_QA",
)
