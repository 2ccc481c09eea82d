"""Paired statistics, against what can be worked out otherwise."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from prumerge.evaluate.statistics import clustered_interval, compare, holm, mcnemar, sign_flips


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test_of_the_discordant_questions(better, worse):
    expected = binomtest(min(better, worse), better + worse).pvalue if better + worse else 1.0
    assert mcnemar(better, worse) == pytest.approx(expected)
    assert mcnemar(better, worse) == mcnemar(worse, better)


def test_mcnemar_by_hand():
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(0, 0) == mcnemar(1, 1) == 1.0


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_signs_are_turned_round_in_all_ways_there_are(differences):
    sums = [sum(ways) for ways in product(*((gap, -gap) for gap in differences))]
    expected = np.mean([abs(one) >= abs(sum(differences)) for one in sums])
    assert sign_flips(differences) == pytest.approx(expected)


@given(st.integers(0, 60), st.integers(0, 60))
def test_of_single_questions_turning_signs_is_mcnemar(better, worse):
    assert sign_flips([1] * better + [-1] * worse) == pytest.approx(mcnemar(better, worse))


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 = 0.06 and 0.04 * 1, which may not fall below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9, 0.6]) == [1.0, 1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_never_makes_a_p_smaller(p):
    corrected = holm(p)
    assert all(new >= min(old, 1) for new, old in zip(corrected, p, strict=True))
    assert max(corrected) <= 1
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.asarray(corrected)[order]) >= 0).all()


def width(values, clusters):
    low, high = clustered_interval(np.asarray(values, float), [str(cluster) for cluster in clusters])
    return high - low


def test_the_interval_is_deterministic_and_holds_the_mean():
    values, clusters = np.tile([1.0, 0.0, -1.0, 0.0, 1.0], 20), [str(place // 2) for place in range(100)]
    low, high = clustered_interval(values, clusters)
    assert low < 100 * values.mean() < high
    assert clustered_interval(values, clusters) == (low, high)
    assert clustered_interval(values, clusters, seed=1) != (low, high)


def test_more_pictures_make_the_interval_narrower():
    few, many = [1.0, 0.0, 0.0, 0.0] * 25, [1.0, 0.0, 0.0, 0.0] * 100
    assert width(many, range(400)) == pytest.approx(width(few, range(100)) / 2, rel=0.1)


def test_single_questions_give_the_normal_interval():
    values = [1.0, 0.0] * 200
    assert width(values, range(400)) == pytest.approx(100 * 2 * 1.96 * 0.5 / 20, rel=0.05)


def test_questions_of_a_picture_that_agree_count_as_one():
    values = np.repeat([1.0, 0.0] * 25, 4)
    together, apart = np.repeat(np.arange(50), 4), np.arange(200)
    assert width(values, together) == pytest.approx(2 * width(values, apart), rel=0.1)


def test_compare_by_hand():
    gap = compare([1.0, 1.0, 0.0, 1.0, 0.3], [1.0, 0.0, 0.0, 0.0, 0.6], list("abcde"))
    assert gap.difference == pytest.approx(100 * (1 + 1 - 0.3) / 5)
    assert gap.flips == 60.0
    assert gap.p == mcnemar(2, 1)
    assert gap.low < gap.difference < gap.high


def test_a_method_is_no_better_than_itself():
    gap = compare([1.0, 0.0, 0.3], [1.0, 0.0, 0.3], list("aab"))
    assert (gap.difference, gap.low, gap.high, gap.p, gap.flips) == (0, 0, 0, 1, 0)
