"""What LLaVA's protocol puts behind a question."""

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def lettered(question: str, choices: list[str]) -> str:
    """A question with its choices, a line each, and what to answer with."""
    options = [f"\n{letter}. {choice}" for letter, choice in zip("ABCDEFGH", choices, strict=False)]
    return question + "".join(options) + LETTER
