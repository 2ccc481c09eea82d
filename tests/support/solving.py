"""Answers to questions about a scene from its list of objects, independently of the code that asks."""

import re

from prumerge.tiny.questions import NUMBERS, PLURALS, Question
from prumerge.tiny.scenes import SHAPES, SIDE, Scene

DIRECTIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Along which axis, and towards which end of it."""


def solve(drawn: Scene, question: Question) -> set[str] | None:
    """All answers that fit, or None for a form this does not know."""
    things, text = drawn.objects, question.text

    def called(name: str) -> list:
        *colour, kind = name.split()
        return [t for t in things if t.kind == kind and colour in ([], [t.colour])]

    if found := re.match(r"what colou?r is the (\w+)\?$|what is the colou?r of the (\w+)\?$", text):
        return {thing.colour for thing in called(found[1] or found[2])}
    if found := re.match(r"(?:which|what) shape is (\w+)\?$", text):
        return {thing.kind for thing in things if thing.colour == found[1] and thing.kind in SHAPES}
    if found := re.match(r"is there an? (.+?)( in the picture)?\?$", text):
        return {"yes" if called(found[1]) else "no"}
    if found := re.match(r"how many (.+?) are (there|in the picture)\?$", text):
        *colour, plural = found[1].split()
        kind = next(kind for kind in PLURALS if PLURALS[kind] == plural)
        return {NUMBERS[len(called(" ".join([*colour, kind])))]}
    if found := re.match(r"which is in the picture\? (.+)$", text):
        options = dict(option.split(": ") for option in re.findall(r"\w: \w+", found[1]))
        return {letter for letter, name in options.items() if called(name)}
    if found := re.match(r"are there (\w+) (.+)\?$", text):
        *colour, plural = found[2].split()
        kind = next(kind for kind in PLURALS if PLURALS[kind] == plural)
        there = len(called(" ".join([*colour, kind])))
        return {"yes" if NUMBERS[there] == found[1] else "no"}
    if found := re.match(r"is the ((?:\w+ )?\w+) ((?:on|at) the \w+)\?$", text):
        (thing,) = called(found[1])
        x, y = thing.centre
        true = {"on the left": x < SIDE / 2, "on the right": x > SIDE / 2}
        true |= {"at the top": y < SIDE / 2, "at the bottom": y > SIDE / 2}
        return {"yes" if true[found[2]] else "no"}
    if found := re.match(r"is the (.+) (left of|right of|above|below) the (.+)\?$", text):
        (thing,), (other,) = called(found[1]), called(found[3])
        axis, sign = DIRECTIONS[found[2]]
        return {"yes" if sign * (thing.centre[axis] - other.centre[axis]) > 0 else "no"}
    if question.family == "reading":
        return {thing.text for thing in things if thing.kind == "sign"}
    if found := re.match(r"is the (.+) on the left or on the right\?$", text):
        return {"left" if thing.centre[0] < SIDE / 2 else "right" for thing in called(found[1])}
    if found := re.match(r"what is (left of|right of|above|below) the (.+)\?$", text):
        (thing,) = called(found[2])
        axis, sign = DIRECTIONS[found[1]]
        beyond = [t for t in things if sign * (t.centre[axis] - thing.centre[axis]) > 0]
        return {question.answer} if called(question.answer) == beyond else {t.kind for t in beyond}
    return None
