"""Scenes are the same everywhere; questions have one answer, and answers are balanced."""

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from prumerge.tiny import SAMPLES, held_out, samples
from prumerge.tiny.questions import FAMILIES, NUMBERS, PLURALS, Question, questions
from prumerge.tiny.scenes import (
    BACKGROUNDS,
    GRID,
    HELD_OUT,
    PATCH,
    REGIMES,
    SHAPES,
    SIDE,
    TRAIN,
    WHAT,
    Scene,
    scene,
)
from prumerge.tiny.write_manifest import MANIFEST, digest


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene(seed) for seed in range(HELD_OUT.start, HELD_OUT.start + 250)]


def test_scenes_match_the_manifest():
    manifest = {int(seed): value for seed, value in json.loads(MANIFEST.read_text()).items()}
    assert manifest == {seed: digest(scene(seed)) for seed in manifest}


def test_training_never_sees_held_out_scenes():
    assert not set(TRAIN) & set(HELD_OUT)


def test_scenes_are_varied(scenes):
    assert {drawn.background for drawn in scenes} == set(BACKGROUNDS)
    assert {drawn.regime for drawn in scenes} == set(REGIMES)
    assert all(drawn.image.size == (SIDE, SIDE) and drawn.objects for drawn in scenes)


def test_objects_lie_inside_and_apart(scenes):
    for drawn in scenes:
        taken = np.zeros((SIDE, SIDE), int)
        for thing in drawn.objects:
            left, top, width, height = thing.box
            assert left >= 0 and top >= 0 and left + width <= SIDE and top + height <= SIDE
            taken[top : top + height, left : left + width] += 1
        assert taken.max() == 1


def test_patch_labels_name_the_objects(scenes):
    for drawn in scenes:
        assert drawn.what.shape == drawn.colours.shape == (GRID, GRID)
        shown = {WHAT[label] for label in np.unique(drawn.what)}
        # A smaller one, such as a thin bicycle, may fill a quarter of no patch.
        large = {thing.kind for thing in drawn.objects if thing.box[2] >= 2 * PATCH}
        assert large - {"sign"} <= shown
        if drawn.sign:
            assert set(drawn.sign.text.upper()) <= shown


def test_answers_are_balanced():
    scenes = [scene(seed) for seed in range(TRAIN.start, TRAIN.start + 450)]
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for drawn in scenes:
        for family in list(FAMILIES) * 3:
            for question in questions(drawn, answers[family].total(), 1, (family,)):
                answers[family][question.answer] += 1
    asked = {family: counter.total() for family, counter in answers.items()}
    assert min(asked.values()) > 200
    assert 0.4 < answers["existence"]["yes"] / asked["existence"] < 0.6
    assert all(0.1 < answers["counting"][number] / asked["counting"] < 0.25 for number in NUMBERS)
    for one, other in [("left", "right"), ("above", "below"), ("top", "bottom")]:
        assert 0.65 < answers["spatial"][one] / answers["spatial"][other] < 1.5
    assert answers["attribute"].most_common(1)[0][1] / asked["attribute"] < 0.15
    assert answers["reading"].most_common(1)[0][1] / asked["reading"] < 0.12
    assert answers["multiple choice"].most_common(1)[0][1] / asked["multiple choice"] < 0.42


def test_every_question_has_one_answer(scenes):
    """Answer from the list of objects, independently of the code that asked."""
    checked = Counter()
    for drawn in scenes:
        for question in questions(drawn, 3, 20):
            answer = solve(drawn, question)
            if answer is not None:
                assert answer == {question.answer}, question
                checked[question.family] += 1
    assert set(checked) == set(FAMILIES)


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
    if question.family == "reading":
        return {thing.text for thing in things if thing.kind == "sign"}
    if found := re.match(r"is the (.+) on the left or on the right\?$", text):
        return {"left" if thing.centre[0] < SIDE / 2 else "right" for thing in called(found[1])}
    if found := re.match(r"what is (left of|right of|above|below) the (.+)\?$", text):
        (thing,) = called(found[2])
        axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[found[1]]
        there = [t for t in things if sign * (t.centre[axis] - thing.centre[axis]) > 0]
        return {question.answer} if called(question.answer) == there else {t.kind for t in there}
    return None


def test_samples_are_shipped_with_answers():
    assert len(samples()) >= 4
    for sample in samples():
        assert sample.path.exists() and 2 <= len(sample.questions) <= 3
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 300_000


def test_held_out_takes_families_in_turn():
    found = [question.family for _, question in held_out(12, seed=1)]
    assert found == list(FAMILIES) * 2
    assert [q for _, q in held_out(4, seed=1)] != [q for _, q in held_out(4, seed=2)]
    with pytest.raises(ValueError, match="from 0 to 39"):
        next(held_out(1, seed=40))
