"""Scores are those of the public benchmarks, their traps included."""

import pytest

from prumerge.evaluate.scoring import (
    accuracy,
    all_right,
    f1,
    letter,
    mme,
    mme_yes_or_no,
    normalised,
    vqa,
    yes_or_no,
)

# VQAv2 and TextVQA


@pytest.mark.parametrize(("agree", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_counts_the_annotators_who_gave_the_answer(agree, expected):
    assert vqa("red", ["red"] * agree + ["blue"] * (10 - agree)) == expected


@pytest.mark.parametrize("agree", range(11))
def test_vqa_is_the_mean_over_leaving_one_annotator_out(agree):
    golds = ["red"] * agree + ["blue"] * (10 - agree)
    others = [golds[:place] + golds[place + 1 :] for place in range(10)]
    official = sum(min(1.0, rest.count("red") / 3) for rest in others) / 10
    assert vqa("red", golds) == pytest.approx(official)


def test_one_gold_answer_counts_as_ten():
    assert (vqa("Red.", ["red"]), vqa("blue", ["red"])) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Red\nStar.", "red star"),
        ("Two", "2"),
        ("none", "0"),
        ("a", ""),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("blue-ish", "blue ish"),  # a mark becomes a space ...
        ("blue - ish-like", "blue ishlike"),  # ... but is deleted everywhere if one stands beside a space
        ("1,000-2", "10002"),  # and so is every mark beside a number with thousands
        ("yes, it is!", "yes it is"),
        ("I dont", "i don't"),
        ("", ""),
    ],
)
def test_normal_form(text, expected):
    assert normalised(text) == expected


# POPE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("No.", "no"),
        ("No, there is none", "no"),
        ("There is not a star.", "no"),
        ("Yes", "yes"),
        ("Yes. No.", "yes"),  # only the first sentence is read
        ("NO", "yes"),  # as the official code has it
        ("know nothing", "yes"),
        ("banana banana", "yes"),  # garbage counts as yes
        ("", "yes"),
    ],
)
def test_whatever_is_no_clear_no_is_a_yes(text, expected):
    assert yes_or_no(text) == expected


def test_f1_by_hand():
    rows = [("yes", "yes"), ("yes", "no"), ("no", "yes"), ("no", "no"), ("yes", "yes")]
    assert f1(rows) == pytest.approx(
        {"accuracy": 60.0, "precision": 200 / 3, "recall": 200 / 3, "f1": 200 / 3, "yes": 60.0}
    )


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([("no", "yes"), ("no", "no")], 50.0),  # never said
        ([("yes", "no"), ("no", "no")], 50.0),  # never there
        ([("no", "no")], 100.0),  # neither
    ],
)
def test_f1_without_any_yes_is_zero(rows, right):
    assert (f1(rows)["f1"], f1(rows)["accuracy"]) == (0.0, right)


# MME


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        (" no.", "no"),
        ("yes, it is", "yes"),
        ("know what", "no"),
        ("I think no", None),
        ("not", "no"),
        ("maybe", None),
        ("", None),
    ],
)
def test_mme_looks_at_four_characters(text, expected):
    assert mme_yes_or_no(text) == expected


def test_mme_adds_accuracy_and_pairs_that_are_wholly_right():
    rows = [
        ("existence", "1", 1.0),
        ("existence", "1", 1.0),
        ("existence", "2", 1.0),
        ("existence", "2", 0.0),
    ]
    assert mme(rows) == 75 + 50
    assert mme([*rows, ("colour", "1", 1.0), ("colour", "1", 1.0)]) == 75 + 50 + 200


# ScienceQA and MMBench


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "b)",
        "B:",
        " B \n",
        "B. star",
        "b: star",
        "(b) star",
        "The answer is B.",
        "The answer is (b)",
    ],
)
def test_a_letter_is_found(text):
    assert letter(text, 4) == "B"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A or B",
        "star",
        "a star",
        "Bee",
        "The answer is A. The answer is B.",
        "The answer is a star",
        "AB",
        "?",
    ],
)
def test_what_is_ambiguous_is_no_letter(text):
    assert letter(text, 4) is None


def test_a_letter_must_be_among_the_options():
    assert letter("E", 4) is None
    assert letter("E", 5) == "E"
    assert letter("The answer is D.", 3) is None
    assert letter("A", 0) is None


def test_circular_counts_groups_of_which_all_are_right():
    rows = [("one", 1.0)] * 4 + [("two", 1.0)] * 3 + [("two", 0.0)]
    assert all_right(rows) == 50.0


# all


def test_accuracy_is_the_mean_in_percent():
    assert accuracy([1.0, 0.0, 0.3, 0.3]) == pytest.approx(40)
