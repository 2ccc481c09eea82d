"""Draw the shipped sample pictures: `python -m prumerge.tiny.draw_samples`.

The rule, so that no picture is chosen for its answers: for each wanted kind of scene the first held-out one
from a fixed seed on, with a background not taken yet, and the first question of three families in turn.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count

from prumerge.tiny import SAMPLES
from prumerge.tiny.questions import FAMILIES, Question, questions
from prumerge.tiny.scenes import HELD_OUT, Scene, scene

FIRST = HELD_OUT.start + 800_000
WANTED = [("huge", False), ("medium", True), ("many", False), ("few", True), ("many", True), ("huge", True)]
FROM = 3  # questions per picture


def choose() -> Iterator[Scene]:
    backgrounds: set[str] = set()
    numbers = count(FIRST)
    for regime, sign in WANTED:
        for number in numbers:
            drawn = scene(number)
            fresh = drawn.background not in backgrounds or len(backgrounds) == 5
            if drawn.regime == regime and (drawn.sign is not None) == sign and fresh:
                backgrounds.add(drawn.background)
                yield drawn
                break


def ask(drawn: Scene, place: int) -> list[Question]:
    """One question of each of three families, other families for other pictures."""
    families = list(FAMILIES)
    turn = families[place % len(families) :] + families[: place % len(families)]
    found = [questions(drawn, place, families=(family,)) for family in turn]
    return [asked[0] for asked in found if asked][:FROM]


def main() -> None:
    SAMPLES.mkdir(exist_ok=True)
    entries = []
    for place, drawn in enumerate(choose()):
        name = f"{drawn.seed}.jpg"
        drawn.image.save(SAMPLES / name, quality=92)
        entries.append({"image": name, "questions": [asdict(question) for question in ask(drawn, place)]})
    (SAMPLES / "samples.json").write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
