"""What a user puts behind each question of a task that has no protocol of its own."""

from __future__ import annotations

from prumerge.evaluate.tasks._task import Source

OPTIONS = {"prompt": "words to put behind each question, such as: Answer in one word."}


def asked(question: str, source: Source) -> str:
    """A question as the model is asked."""
    prompt = source.options.get("prompt", "")
    return f"{question}\n{prompt}" if prompt else question
