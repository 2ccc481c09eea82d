"""The mini-benchmarks ask what can be answered, in the proportions of the benchmarks they mirror."""

import re
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from solving import solve

from prumerge.tiny import SCENES_PER_SEED
from prumerge.tiny.benchmarks import BENCHMARKS, FIRST, WHOLE, pictures, video
from prumerge.tiny.questions import Question
from prumerge.tiny.scenes import HELD_OUT, SHAPES, TRAIN, UNSEEN, UNSEEN_PAIRS, Scene

COUNT = 4 * WHOLE


@pytest.fixture(scope="module")
def asked():
    """The scene of each item and the items, by benchmark."""
    found = defaultdict(list)
    for drawn, items in pictures(COUNT, tuple(BENCHMARKS)):
        for item in items:
            assert item.picture == drawn.seed
            found[item.benchmark].append((drawn, item))
    return dict(found)


def items(asked, name):
    return [item for _, item in asked[name]]


def things(drawn: Scene, name: str) -> list:
    *colour, kind = name.split()
    return [thing for thing in drawn.objects if thing.kind == kind and colour in ([], [thing.colour])]


def name_in(question: str) -> str:
    return re.fullmatch(r"is there an? (.+)\?", question)[1]


def options(item) -> dict[str, str]:
    return {letter.upper(): name for letter, name in re.findall(r"(\w): (\w+)", item.question)}


def test_every_benchmark_has_exactly_so_many_questions_with_ids_of_their_own(asked):
    assert {name: len(found) for name, found in asked.items()} == dict.fromkeys(BENCHMARKS, COUNT)
    ids = [item.id for found in asked.values() for _, item in found]
    assert len(set(ids)) == len(ids)


def test_questions_are_the_same_every_time_and_in_any_company(asked):
    alone = [item for _, found in pictures(WHOLE, ("circular", "existence")) for item in found]
    for name in ("circular", "existence"):
        assert [item for item in alone if item.benchmark == name] == items(asked, name)[:WHOLE]


def test_scenes_are_those_of_nobody_else(asked):
    samples_and_checks = (HELD_OUT.start + 800_000, HELD_OUT.start + 900_000)
    assert HELD_OUT.start + 40 * SCENES_PER_SEED <= samples_and_checks[0] < FIRST - 10_000
    for seeds in ([drawn.seed for drawn, _ in found] for found in asked.values()):
        assert FIRST <= min(seeds) <= max(seeds) < FIRST + 10_000 < samples_and_checks[1]
        assert not any(seed in TRAIN for seed in seeds)
        assert all(before <= after for before, after in pairwise(seeds))


def test_attributes_are_right(asked):
    for drawn, item in asked["attribute"]:
        if found := re.search(r"colou?r (?:is|of) the (\w+)", item.question):
            assert {thing.colour for thing in things(drawn, found[1])} == {item.gold}
        else:
            colour = re.search(r"shape is (\w+)", item.question)[1]
            assert [t.kind for t in drawn.objects if t.colour == colour and t.kind in SHAPES] == [item.gold]


def test_words_are_those_on_the_sign(asked):
    assert all(item.gold == drawn.sign.text for drawn, item in asked["reading"])


# POPE


def test_splits_are_equal_and_half_of_each_is_yes(asked):
    counts = Counter((item.split, item.gold) for item in items(asked, "existence"))
    splits = ("random", "popular", "adversarial")
    assert counts == {(split, gold): COUNT // 6 for split in splits for gold in ("yes", "no")}


def test_existence_is_right_and_negatives_are_of_their_kind(asked):
    for drawn, item in asked["existence"]:
        name = name_in(item.question)
        assert item.gold == ("yes" if things(drawn, name) else "no")
        if item.split == "popular":
            assert name in [*SHAPES, "sign"]
        if item.split == "adversarial":
            assert things(drawn, name.split()[1]), "the shape is there, if in another colour"
        else:
            assert " " not in name


# MME


def test_pairs_are_whole_one_yes_and_one_no_on_one_picture(asked):
    pairs = defaultdict(list)
    for drawn, item in asked["perception"]:
        assert solve(drawn, Question("existence", item.question, item.gold)) == {item.gold}
        pairs[item.split, item.group].append(item)
    assert all([item.gold for item in pair] == ["yes", "no"] for pair in pairs.values())
    assert all(len({item.picture for item in pair}) == 1 for pair in pairs.values())
    each = COUNT // 8
    assert Counter(subtask for subtask, _ in pairs) == dict.fromkeys(
        ("existence", "count", "position", "colour"), each
    )


def test_a_colour_pair_asks_for_one_thing_in_two_colours(asked):
    colours = [
        name_in(item.question).split() for item in items(asked, "perception") if item.split == "colour"
    ]
    for (right, kind), (wrong, same) in zip(colours[::2], colours[1::2], strict=True):
        assert kind == same
        assert right != wrong


# ScienceQA and MMBench


@pytest.mark.parametrize("name", ["choice", "circular"])
def test_right_letters_are_spread_evenly_and_one_option_is_right(asked, name):
    assert Counter(item.gold for item in items(asked, name)) == dict.fromkeys("ABCD", COUNT // 4)
    for drawn, item in asked[name]:
        offered = options(item)
        assert list(offered) == list("ABCD")
        assert len(set(offered.values())) == item.options == 4
        if item.question.startswith("which is in the picture?"):
            right = [letter for letter, option in offered.items() if things(drawn, option)]
        elif item.question.startswith("what does the sign say?"):
            right = [letter for letter, option in offered.items() if option == drawn.sign.text]
        else:
            (thing,) = things(drawn, re.match(r"what colour is the (\w+)\?", item.question)[1])
            right = [letter for letter, option in offered.items() if option == thing.colour]
        assert right == [item.gold]


def test_circular_moves_the_options_of_one_question_round(asked):
    groups = defaultdict(list)
    for item in items(asked, "circular"):
        groups[item.group].append(item)
    assert len(groups) == COUNT // 4
    for group in groups.values():
        assert [item.gold for item in group] == list("ABCD")
        first, *rest = (list(options(item).values()) for item in group)
        assert rest == [first[-turn:] + first[:-turn] for turn in (1, 2, 3)]
        assert len({item.question.partition("?")[0] for item in group}) == 1


# clips and what training never showed


def test_clips_are_asked_in_equal_parts_about_their_eight_frames():
    clips = list(video(WHOLE))
    items = [item for _, about in clips for item in about]
    assert {len(clip.frames) for clip, _ in clips} == {8}
    assert len(items) == len({item.id for item in items}) == WHOLE
    splits = Counter(item.split for item in items)
    assert set(splits) == {"motion", "mover", "clip attribute"}
    assert splits["motion"] == splits["mover"] >= WHOLE // 3


def test_the_unseen_split_is_of_scenes_that_training_could_not_draw():
    stills = [((drawn,), items) for drawn, items in pictures(WHOLE, ("attribute", "reading"), unseen=True)]
    clips = [(clip.frames, items) for clip, items in video(WHOLE, unseen=True)]
    for frames, items in stills + clips:
        pairs = {(thing.colour, thing.kind) for thing in frames[0].objects if thing.kind in SHAPES}
        assert pairs <= set(UNSEEN_PAIRS)
        assert all(item.picture in UNSEEN for item in items)
