"""Scenes are the same everywhere; questions have one answer, and answers are balanced."""

import json
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from solving import solve

from prumerge.tiny import SAMPLES, held_out, samples
from prumerge.tiny.clips import FAMILIES as CLIP_FAMILIES
from prumerge.tiny.clips import FRAMES, clip, clip_questions
from prumerge.tiny.learn_language import contents
from prumerge.tiny.learn_vision import LABELS, centres
from prumerge.tiny.questions import FAMILIES, NUMBERS, PLURALS, questions
from prumerge.tiny.scenes import (
    BACKGROUNDS,
    GRID,
    HELD_OUT,
    PATCH,
    REGIMES,
    SEEN_FONTS,
    SHAPES,
    SIDE,
    TRAIN,
    UNSEEN,
    UNSEEN_FONTS,
    UNSEEN_PAIRS,
    WHAT,
    Scene,
    scene,
)
from prumerge.tiny.write_manifest import MANIFEST, digest


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene(seed) for seed in range(HELD_OUT.start, HELD_OUT.start + 150)]


@pytest.fixture(scope="module")
def of_training() -> list[Scene]:
    return [contents(seed) for seed in range(TRAIN.start, TRAIN.start + 450)]


def test_scenes_match_the_manifest():
    manifest = {int(seed): value for seed, value in json.loads(MANIFEST.read_text()).items()}
    assert manifest == {seed: digest(scene(seed)) for seed in manifest}


def test_training_never_sees_held_out_scenes():
    assert all(one.stop <= next_one.start for one, next_one in pairwise((TRAIN, HELD_OUT, UNSEEN)))


def test_training_never_sees_nor_speaks_of_the_unseen_pairs(scenes, of_training):
    singular = {plural: kind for kind, plural in PLURALS.items()}
    for drawn in (*of_training[:80], *scenes[:80]):
        assert not {(thing.colour, thing.kind) for thing in drawn.objects} & set(UNSEEN_PAIRS)
        for question in questions(drawn, 1, 12):
            words = [singular.get(word, word) for word in question.text.replace("?", "").split()]
            assert not set(pairwise(words)) & set(UNSEEN_PAIRS), question
    assert not set(LABELS) & {" ".join(pair) for pair in UNSEEN_PAIRS}


def test_unseen_scenes_show_only_unseen_pairs_and_another_font():
    drawn = [scene(seed) for seed in range(UNSEEN.start, UNSEEN.start + 60)]
    pairs = {(thing.colour, thing.kind) for one in drawn for thing in one.objects if thing.kind in SHAPES}
    assert pairs == set(UNSEEN_PAIRS)
    assert any(one.sign for one in drawn)
    assert not set(SEEN_FONTS) & set(UNSEEN_FONTS)


def test_each_object_has_one_middle_and_its_patches_know_where(scenes):
    for drawn in scenes[:60]:
        middles = centres(drawn)
        shows = drawn.what.ravel() > 0
        assert (middles[~shows] == np.flatnonzero(~shows)).all()
        found = set(middles[shows].tolist())
        assert (middles[list(found)] == list(found)).all()
        assert len(found) <= len(drawn.objects)
        for place in found:
            row, column = divmod(place, GRID)
            x, y = (column + 0.5) * PATCH, (row + 0.5) * PATCH
            off = [np.abs(np.array([x, y]) - t.centre) / t.box[2:] for t in drawn.objects]
            assert np.min(np.max(off, 1)) < 0.75


def test_one_thing_moves_in_a_clip_and_questions_are_about_it():
    asked = Counter()
    for drawn in map(clip, range(TRAIN.start, TRAIN.start + 40)):
        assert len(drawn.frames) == FRAMES
        ways = {frame.objects[1:] for frame in drawn.frames}
        assert len(ways) == 1
        (x0, y0), (x1, y1) = (drawn.frames[n].objects[0].centre for n in (0, -1))
        across, down = x1 - x0, y1 - y0
        way = {"left": -across, "right": across, "top": -down, "bottom": down}
        assert max(way, key=way.__getitem__) == drawn.towards and sorted(map(abs, (across, down)))[0] == 0
        assert drawn.frames[0].image.tobytes() != drawn.frames[-1].image.tobytes()
        for question in clip_questions(drawn, 0, 6):
            asked[question.family] += 1
            if question.family == "motion":
                assert drawn.mover.kind in question.text and question.answer == drawn.towards
            if question.family == "mover":
                assert question.answer == drawn.frames[0].objects[0].kind
    assert set(asked) == set(CLIP_FAMILIES)


def test_clips_are_the_same_every_time():
    one, other = clip(HELD_OUT.start), clip(HELD_OUT.start)
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(one.frames, other.frames, strict=True))


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


def test_answers_are_balanced(of_training):
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for drawn in of_training:
        for family in list(FAMILIES) * 3:
            for question in questions(drawn, answers[family].total(), 1, (family,)):
                answers[family][question.answer] += 1
    asked = {family: counter.total() for family, counter in answers.items()}
    assert min(asked.values()) > 200
    assert 0.4 < answers["existence"]["yes"] / asked["existence"] < 0.6
    numbers = sum(answers["counting"][number] for number in NUMBERS)
    assert all(0.1 < answers["counting"][number] / numbers < 0.25 for number in NUMBERS)
    for family in ("counting", "spatial"):
        assert 0.65 < answers[family]["yes"] / answers[family]["no"] < 1.5
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
