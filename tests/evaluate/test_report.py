"""From answers to a table: fair comparisons, and reports that can be read."""

import csv
import io

import pytest
from builders import record

from prumerge.evaluate.records import by_method
from prumerge.evaluate.report import (
    BLIND,
    as_csv,
    beside_keep,
    blind,
    columns,
    complete,
    cut_short,
    few,
    rescored,
    rivals,
    summarise,
)
from prumerge.evaluate.statistics import holm, mcnemar
from prumerge.evaluate.tasks import DRAWN


def answers(method, right, *, task="attribute", tokens=36, gold="red"):
    """One method's answers; `right` is a string of 1 (right) and 0."""
    return [
        record(
            f"{task}-{place:04}",
            method=method,
            tokens_kept=tokens,
            gold=gold,
            prediction=gold if one == "1" else "wrong",
            score=float(one),
        )
        for place, one in enumerate(right)
    ]


def table(*runs):
    groups = by_method([one for run in runs for one in run])
    return {row.method: row for row in summarise(groups)}


# rows


def test_scoring_anew_reads_the_answer_and_not_the_score():
    assert rescored(record(prediction="Red!", score=0.0)).score == 1.0
    assert rescored(record("choice-0000", prediction="(b)", gold="B", options=4, score=0.0)).score == 1.0


def test_a_row_counts_tokens_and_averages_times():
    rows = [
        record(f"attribute-{place:04}", tokens_kept=kept, encode_ms=kept / 10)
        for place, kept in enumerate([20, 40, 40, 60])
    ]
    row = table(rows)["none"]
    assert (row.tokens, row.encode_ms, row.questions) == (40, 4, 4)
    assert 20 < row.tokens_low < 40 < row.tokens_high < 60


def test_every_method_is_compared_with_none_question_by_question():
    rows = table(answers("none", "111111110"), answers("a@36", "000000000"), answers("b@36", "111111101"))
    assert rows["none"].against_none is None
    assert rows["a@36"].against_none.difference == pytest.approx(-800 / 9)
    raw = [mcnemar(0, 8), mcnemar(1, 1)]
    assert [rows[name].against_none.p for name in ("a@36", "b@36")] == pytest.approx(holm(raw))
    assert rows["b@36"].against_none.flips == pytest.approx(200 / 9)


def test_only_questions_that_both_answered_are_compared():
    rows = table(answers("none", "1111"), answers("a@36", "01"))
    assert rows["a@36"].against_none.difference == -50
    assert (rows["a@36"].accuracy, rows["none"].questions, rows["a@36"].questions) == (50, 4, 2)


def test_a_run_without_none_yet_has_a_table_all_the_same():
    rows = table(answers("a@36", "01"))
    assert rows["a@36"].against_none is None
    assert rivals(by_method(answers("a@36", "01"))) == []


# blind


def test_blind_is_the_best_single_answer_of_each_task():
    attribute = [
        record(f"attribute-{place:04}", gold=gold) for place, gold in enumerate(["red", "blue", "blue"])
    ]
    existence = [
        record(f"existence-{place:04}", gold=gold, split="random") for place, gold in enumerate(["yes", "no"])
    ]
    guesses = blind([*attribute, *existence])
    assert [one.prediction for one in guesses] == ["blue"] * 3 + ["yes"] * 2
    row = table(attribute, existence)[BLIND]
    assert row.scores == pytest.approx({"attribute": 200 / 3, "existence": 200 / 3})
    assert (row.tokens, row.encode_ms, row.questions, row.against_none) == (0, 0, 5, None)


def test_blind_gains_nothing_from_rotations_and_pairs():
    pair = [
        record(f"perception-{place:04}", gold=gold, split="colour", group="7")
        for place, gold in enumerate(["yes", "no"])
    ]
    turns = [
        record(f"circular-{place:04}", gold=gold, group="7", options=4) for place, gold in enumerate("ABCD")
    ]
    assert table(pair, turns)[BLIND].scores == {"perception": 50, "circular": 0}


# rivals


def pairs(*runs):
    return [(pair.first, pair.second) for pair in rivals(by_method([one for run in runs for one in run]))]


def test_the_first_method_meets_the_others_at_its_tokens():
    found = pairs(
        answers("none", "11", tokens=576),
        answers("a@36", "10"),
        answers("b@36", "10"),
        answers("a@144", "10", tokens=144),
        answers("c@36", "10"),
        answers("b@144", "10", tokens=144),
        answers("a@576", "10", tokens=576),
    )
    assert found == [("a@36", "b@36"), ("a@36", "c@36"), ("a@144", "b@144")]


def test_an_own_choice_meets_all_at_its_mean_even_where_that_is_a_budget():
    own = [
        record(f"attribute-{place:04}", method="a@auto", tokens_kept=kept)
        for place, kept in enumerate([35, 38])
    ]
    assert pairs(own, answers("b@36", "10"), answers("c@37", "10", tokens=37)) == [("a@auto", "b@36")]
    found = pairs(answers("a@36", "10"), answers("b@36", "10"), own)
    assert found == [("a@36", "b@36"), ("a@36", "a@auto"), ("a@auto", "b@36")]


def test_rivals_are_corrected_over_all_pairs():
    run = [answers("a@36", "1" * 10), answers("b@36", "0" * 10), answers("c@36", "1" * 9 + "0")]
    first, second = rivals(by_method([one for part in run for one in part]))
    assert [first.comparison.p, second.comparison.p] == pytest.approx(holm([mcnemar(10, 0), mcnemar(1, 0)]))
    assert first.sentence() == "a@36 - b@36: +100.0 points [+100.0, +100.0], p = 0.0039"


def test_methods_without_a_common_question_are_no_rivals():
    assert pairs(answers("a@36", "10"), answers("b@36", "10", task="reading")) == []


# files


@pytest.fixture
def uneven():
    """`b` was asked a task that `a` was not."""
    rows = table(
        answers("none", "11", tokens=576),
        answers("none", "10", task="reading", tokens=576),
        answers("a@36", "11"),
        answers("b:x=1,y=2@36", "10"),
        answers("b:x=1,y=2@36", "11", task="reading"),
    )
    return list(rows.values())


def test_the_csv_has_a_line_for_each_method_and_a_place_for_each_score(uneven):
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(as_csv(uneven)))}
    assert list(lines) == ["none", "a@36", "b:x=1,y=2@36", "blind"]
    assert (lines["a@36"]["attribute"], lines["a@36"]["reading"]) == ("100.0", "")
    assert lines["b:x=1,y=2@36"]["reading"] == "100.0"
    assert (lines["none"]["difference"], lines["a@36"]["difference"]) == ("", "0.0")
    assert lines["a@36"]["questions"] == "2"


def test_columns_are_those_that_any_method_has(uneven):
    assert columns(uneven[1:2]) == ["attribute"]
    assert columns(uneven) == ["attribute", "reading"]
    rows = table(*(answers("a", "1", task=name) for name in DRAWN))
    assert columns(list(rows.values())) == list(DRAWN)


# what is said below the table


def test_few_questions_are_said_to_be_few(uneven):
    assert few(uneven).startswith("2 questions in each task are few: a single answer moves its score by 50.0")
    assert few(list(table(answers("none", "1" * 100)).values())) == ""


def test_tokens_beside_keep_are_said_for_each_budget():
    def handed(label, spec):
        return [record("attribute-0000", method=label, spec=spec, tokens_kept=36)]

    rows = table(
        handed("none", "none"),
        handed("prumerge@36", "prumerge:keep=35"),
        handed("prumerge@144", "prumerge:keep=143"),
        handed("topk@merged@36", "topk:keep=36@merged"),
        handed("trim@merged@36", "trim:keep=35@merged"),
        handed("vidcom2@36", "vidcom2:keep=288"),
        handed("prumerge@auto", "prumerge"),
    )
    assert beside_keep(list(rows.values())) == [
        "prumerge: @36 is keep=35 and 1 for the rest, @144 is keep=143 and 1 for the rest.",
        "trim@merged: @36 is keep=35 and 1 for the rest.",
    ]


def test_answers_that_were_cut_are_counted_over_all_methods():
    def cut(method, task, *whether):
        return [record(f"{task}-{n:04}", method=method, cut=one) for n, one in enumerate(whether)]

    rows = table(
        cut("none", "attribute", True, False),
        cut("a@36", "attribute", True, True),
        cut("a@36", "reading", False),
        cut("a@36", "easy_vqa", True),
    )
    assert cut_short(list(rows.values())) == [
        "3 answers of attribute were cut at 12 tokens.",
        "1 answer of easy_vqa was cut at 16 tokens.",
    ]
    assert (rows["a@36"].cut, rows["none"].cut) == ({"attribute": 2, "easy_vqa": 1}, {"attribute": 1})


def test_questions_of_two_tasks_may_share_an_id_and_pictures_a_name():
    def one(method, task, score):
        return [record("attribute-0000", method=method, task=task, score=score)]

    rows = table(one("none", "attribute", 1.0), one("none", "custom", 0.0), one("a", "custom", 1.0))
    assert (rows["a"].against_none.difference, rows["a"].scores) == (100, {"custom": 100})
    scene, clip, other = (record(task=name).cluster for name in ("attribute", "reading", "custom"))
    assert scene == clip != other


def test_complete_rows_are_those_that_were_asked_the_same(uneven):
    assert [row.method for row in complete(uneven)] == ["none", "b:x=1,y=2@36", "blind"]
