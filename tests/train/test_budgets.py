"""How many tokens a step keeps."""

from collections import Counter

import pytest

from prumerge.errors import PrumergeError
from prumerge.train.budgets import Budgets


@pytest.mark.parametrize("text, counts", [("36", (36,)), ("36,144", (36, 144)), ("16-144", (16, 144))])
def test_what_a_user_writes_is_read_and_written_again(text, counts):
    budgets = Budgets.read(text)
    assert budgets.counts == counts
    assert str(budgets) == text
    assert budgets.between == ("-" in text)


@pytest.mark.parametrize(
    "text", ["", "0", "-", "16-", "36;144", "a few", "1.5", "144-16", "16-16", "-5", "1-2-3"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(PrumergeError, match="budgets"):
        Budgets.read(text)


def test_none_at_all_is_the_method_s_own_choice():
    assert Budgets.read(None).at(0, 7) is None
    assert Budgets().typical() == (None,)
    assert str(Budgets()) == "auto"


def test_a_step_has_one_budget_whoever_asks():
    budgets = Budgets.read("16-144")
    drawn = [budgets.at(5, step) for step in range(50)]
    assert drawn == [Budgets.read("16-144").at(5, step) for step in range(50)]
    assert drawn != [budgets.at(6, step) for step in range(50)]


def test_a_range_is_drawn_evenly_in_its_logarithm():
    drawn = [Budgets.read("16-143").at(0, step) for step in range(3000)]
    assert set(drawn) <= set(range(16, 144))
    assert {16, 143} <= set(drawn)
    few = sum(count < 48 for count in drawn) / len(drawn)
    assert few == pytest.approx(0.5, abs=0.03)  # as many below the geometric mean as above


def test_a_list_is_drawn_evenly():
    drawn = Counter(Budgets.read("9,36,144").at(0, step) for step in range(3000))
    assert set(drawn) == {9, 36, 144}
    assert all(count == pytest.approx(1000, rel=0.1) for count in drawn.values())


def test_measured_is_at_both_ends_and_between():
    assert Budgets.read("16-144").typical() == (16, 48, 144)
    assert Budgets.read("9,36").typical() == (9, 36)
