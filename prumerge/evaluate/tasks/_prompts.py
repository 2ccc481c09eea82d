"""What is put behind a question: by LLaVA's protocol, or by a user where a task has none of its own."""

from __future__ import annotations

from prumerge.evaluate.tasks._task import Source

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
OPTIONS = {"prompt": "words to put behind each question, such as: Answer in one word."}


def lettered(question: str, choices: list[str]) -> str:
    """A question with its choices, a line each, and what to answer with."""
    options = [f"\n{letter}. {choice}" for letter, choice in zip("ABCDEFGH", choices, strict=False)]
    return question + "".join(options) + LETTER


def asked(question: str, source: Source) -> str:
    """A question as the model is asked."""
    prompt = source.options.get("prompt", "")
    return f"{question}\n{prompt}" if prompt else question
