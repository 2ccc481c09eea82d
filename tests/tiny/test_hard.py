"""Hard scenes: the same pixels from a seed, right answers to what is asked, and training that goes on."""

import hashlib
import itertools
import json
import re
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch

from prumerge.tiny import hard, scenes
from prumerge.tiny.hard import HELD_OUT, REGIMES, cell, hard_scene
from prumerge.tiny.hard_questions import FAMILIES, NUMBERS, asked, hard_questions
from prumerge.tiny.questions import PLURALS
from prumerge.tiny.scenes import SIDE
from prumerge.tiny.vocabulary import make_tokenizer, words

SOME = [hard_scene(HELD_OUT.start + number) for number in range(24)]


def test_a_seed_gives_the_same_pixels_everywhere():
    pixels = b"".join(scene.image.tobytes() + repr(scene.objects).encode() for scene in SOME[:8])
    assert hashlib.sha256(pixels).hexdigest() == (
        "f1a341eba1059c92b6a5d590a1bfd453e49e402ccea59f234df9d956f029b647"
    )


def test_no_seed_is_both_trained_on_and_held_out_or_one_of_an_ordinary_scene():
    ranges = [hard.TRAIN, hard.HELD_OUT, scenes.TRAIN, scenes.HELD_OUT, scenes.UNSEEN]
    for one, other in itertools.combinations(ranges, 2):
        assert one.stop <= other.start or other.stop <= one.start


def test_there_are_all_kinds_of_hard_scenes_and_their_things_lie_apart_inside():
    assert {scene.regime for scene in SOME} == set(REGIMES)
    for scene in SOME:
        for thing in scene.objects:
            left, top, width, height = thing.box
            assert min(left, top) >= 0
            assert max(left + width, top + height) <= SIDE
            assert min(width, height) >= 20
        for (x, y, w, h), (left, top, width, height) in itertools.combinations(
            [thing.box for thing in scene.objects], 2
        ):
            assert left >= x + w or x >= left + width or top >= y + h or y >= top + height


@pytest.mark.parametrize(
    ("regime", "seen"),
    [
        ("crowd", lambda things: len(things) >= 6),
        ("grid", lambda things: len({cell(thing) for thing in things}) == len(things) >= 10),
        ("flock", lambda things: Counter(thing.kind for thing in things).most_common(1)[0][1] >= 2),
        ("signs", lambda things: len({(t.colour, t.text) for t in things if t.kind == "sign"}) == 2),
    ],
)
def test_each_kind_of_scene_shows_what_its_name_says(regime, seen):
    assert all(seen(scene.objects) for scene in SOME if scene.regime == regime)


def test_textures_are_behind_things_and_no_thing_to_the_labels():
    for scene in SOME:
        background = scene.what == 0
        assert background.any()
        assert {scenes.WHAT[label] for label in np.unique(scene.what[~background])} - {"sign"} <= {
            *(thing.kind for thing in scene.objects),
            *"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        }


def of(family):
    return [(scene, one) for scene in SOME for one in hard_questions(scene, 3, 60) if one.family == family]


def named(scene, name):
    """The things of a name such as "red star" or "star"."""
    *colour, kind = name.split()
    return [
        thing for thing in scene.objects if thing.kind == kind and (not colour or thing.colour == colour[0])
    ]


def test_counts_are_those_of_the_scene_up_to_nine():
    kinds = {plural: kind for kind, plural in PLURALS.items()}
    counted = [(scene, one) for scene, one in of("counting") if one.text.startswith("how many")]
    for scene, one in counted:
        name = one.text.removeprefix("how many ").split(" are ")[0].split()
        name[-1] = kinds[name[-1]]
        assert NUMBERS.index(one.answer) == len(named(scene, " ".join(name)))
    assert {one.answer for _, one in counted} >= {"zero", "three", "six"}


def test_what_is_said_to_be_there_is_there_and_nothing_else_is():
    for scene, one in of("existence"):
        name = one.text.removeprefix("is there a ").removeprefix("is there an ").split(" in ")[0].rstrip("?")
        assert (one.answer == "yes") == bool(named(scene, name))
    for scene, one in of("choice"):
        options = re.findall(r"([a-d]): ([a-z ]+?)(?= [a-d]:|$)", one.text)
        assert [letter for letter, name in options if named(scene, name)] == [one.answer]


def test_of_three_things_the_nearer_one_is_nearer():
    for scene, one in of("relation"):
        if "nearer" in one.text:
            thing, rest = one.text.removeprefix("is the ").split(" nearer to the ")
            names = rest.rstrip("?").split(" or to the ")
            (middle,) = named(scene, thing)
            ways = [np.hypot(*np.subtract(named(scene, name)[0].centre, middle.centre)) for name in names]
            assert one.answer == names[int(np.argmin(ways))]


def test_cells_are_counted_from_the_top_left_corner():
    for scene, one in of("grid"):
        if one.text.startswith("what is in row"):
            row, column = (NUMBERS.index(word.rstrip("?")) - 1 for word in one.text.split()[4::3])
            assert [thing.kind for thing in scene.objects if cell(thing) == (row, column)] == [one.answer]


def test_a_sign_is_asked_for_by_its_colour_or_place():
    for scene, one in of("reading"):
        said = {thing.text: thing for thing in scene.objects if thing.kind == "sign"}
        (other,) = (thing for text, thing in said.items() if text != one.answer)
        sign = said[one.answer]
        name = one.text.split(" sign")[0].split()[-1]
        assert name == sign.colour or (name == "top") == (sign.centre[1] < other.centre[1])


def test_every_word_is_in_the_vocabulary_whose_other_words_keep_their_ids():
    assert words(hard=True)[: len(words())] == words()
    known = make_tokenizer(hard=True)
    for scene in SOME:
        for one in hard_questions(scene, 0, 30):
            tokens = known.tokenize(f"{one.text} {one.answer}")
            assert not [token for token in tokens if token.startswith("##") or token == "<unk>"]


def test_families_are_asked_equally_often_and_a_scene_once_by_each():
    found = list(asked(map(hard_scene, itertools.count(HELD_OUT.start)), 50))
    families = [one.family for _, questions in found for _, one in questions]
    assert sorted(Counter(families).values()) == [7] * 6 + [8]
    assert all(len({one.family for _, one in some}) == len(some) for _, some in found)
    assert {*families} == {*FAMILIES}


def test_texts_are_spelled_as_the_tokenizer_spells_them():
    from prumerge.tiny.learn_hard_pool import scene_of, spelled

    tokenizer, ids = make_tokenizer(hard=True), {word: place for place, word in enumerate(words(hard=True))}
    for row in range(5):
        for one in scene_of(row, 2)[1]:
            prompt = f"{one.text} ASSISTANT:"
            assert spelled(prompt, ids) == tokenizer(prompt, add_special_tokens=False).input_ids


@pytest.mark.parametrize("merging", [False, True])
def test_half_of_the_pictures_keep_their_tokens_as_they_are_and_the_others_absorb_some(merging):
    from prumerge.tiny.learn_hard_tokens import ordered, shown

    torch.manual_seed(0)
    features = torch.randn(64, 576, 8)
    order = ordered(features)
    assert (order.sort(1).values == torch.arange(576)).all()
    tokens, places = shown(features, order, 40, merging)
    own = features.gather(1, places[..., None].expand(-1, -1, 8))
    same = (tokens == own).all(-1).all(-1).float().mean()
    assert 0.3 < same < 0.8 if merging else same == 1


def test_training_on_writes_a_model_that_opens_and_a_log(tmp_path):
    from transformers import LlavaForConditionalGeneration

    from prumerge.tiny.train_hard import parser, train

    few = "--preset test --minutes 0.04 --scenes 12 --clips 3 --check-scenes 4 --batch 2 --workers 2"
    train(parser().parse_args(["--out", str(tmp_path), *few.split()]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "tiny_hard.tar"]
    stages = [json.loads(line)["stage"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(stages)) == ["start", "vision", "cache", "strewn", "few", "full", "done"]
    with tarfile.open(tmp_path / "tiny_hard.tar") as archive:
        archive.extractall(tmp_path / "model", filter="data")
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert model.get_input_embeddings().num_embeddings == len(words(hard=True))
