"""A threshold for a stated risk: what is promised of it, and what it never claims."""

import numpy as np
import pytest
from builders import record
from scipy.stats import binom

from prumerge.evaluate.guard import (
    Case,
    Step,
    cases,
    cost,
    halves,
    p_value,
    pictures_needed,
    threshold,
)


def case(picture, *said):
    """A question; each step is (probability, whether it says the same), the untouched model comes last."""
    steps = [Step(sure, same, 16.0 * 4**place) for place, (sure, same) in enumerate(said)]
    return Case(str(picture), (*steps, Step(1.0, True, 576.0)))


def drawn(count, seed, careful=True):
    """Cases of a model whose probability says how often its answer from few tokens is the untouched one."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        sure = random.uniform(0.3, 1)
        same = bool(random.uniform() < (sure if careful else 0.5))
        found.append(case(number, (sure, same)))
    return found


def test_the_first_step_that_is_sure_enough_answers_and_the_untouched_model_if_none_is():
    one = case("a", (0.5, False), (0.8, True))
    assert [one.at(value) for value in (0.4, 0.5, 0.6, 0.81, 2)] == [0, 0, 1, 2, 2]


def test_a_picture_counts_once_however_many_questions_are_asked_about_it():
    bad = [case("a", (0.9, False))] * 50  # one picture of 100 is lost wholly
    good = [case(number, (0.9, True)) for number in range(99)]
    assert threshold(bad + good, 0.95, 0.9) == 0.9
    assert threshold(bad + good, 0.99, 0.5) > 1


def test_a_threshold_keeps_what_it_promises_on_other_pictures():
    kept = 0
    for seed in range(30):
        found = threshold(drawn(200, seed), 0.9, 0.9)
        kept += cost(drawn(500, 1000 + seed), found).same >= 90
    assert kept >= 27 - 3  # 90 % of 30, less two standard deviations


def test_it_is_worth_something_where_the_model_knows_when_it_is_right_and_little_where_it_does_not():
    careful, blind = (drawn(600, 0, careful) for careful in (True, False))
    assert cost(careful, threshold(careful, 0.9, 0.9)).tokens < 0.6 * 576
    assert cost(blind, threshold(blind, 0.9, 0.9)).tokens > 0.8 * 576  # wrong half of the time: seldom asked


def test_too_few_pictures_show_nothing():
    least = pictures_needed(0.99, 0.95)
    assert least == 299
    sure = [case(number, (1.0, True)) for number in range(least)]
    assert threshold(sure, 0.99, 0.95) == 1.0
    assert threshold(sure[:-1], 0.99, 0.95) is None


def test_many_questions_about_a_picture_are_no_more_pictures():
    sure = [case(number % 100, (1.0, True)) for number in range(1000)]
    assert threshold(sure, 0.99, 0.95) is None


@pytest.mark.parametrize(("count", "wrong"), [(300, 0), (300, 2), (50, 5)])
def test_p_of_losses_that_are_whole_is_exact(count, wrong):
    assert p_value(np.arange(count) < wrong, 0.05) == pytest.approx(binom.cdf(wrong, count, 0.05))


def test_p_of_losses_in_parts_is_true_however_they_are_spread():
    random, rejected = np.random.default_rng(0), 0
    for _ in range(400):  # the mean is the risk itself: p below 0.1 is wrong
        each = 0.5 * random.binomial(2, 0.1, size=200)
        rejected += p_value(each, 0.1) < 0.1
    assert rejected <= 40


def test_what_is_read_counts_every_step_that_was_tried():
    found = cost([case("a", (0.9, True)), case("b", (0.1, False), (0.9, False))][:1], 0.5)
    assert (found.tokens, found.answered, found.untouched) == (16, (100, 0), 576)
    found = cost([case("b", (0.1, False), (0.9, False)), case("c", (0.1, True), (0.2, True))], 0.5)
    assert (found.tokens, found.same) == ((80 + 656) / 2, 50)


def test_halves_share_no_picture_and_are_drawn_the_same_again():
    asked = [case(number // 3, (1.0, True)) for number in range(30)]
    first, second = halves(asked)
    assert {one.picture for one in first}.isdisjoint({one.picture for one in second})
    assert (len(first), halves(asked)) == (15, (first, second))


def test_cases_are_questions_that_every_step_answered():
    none = [record(f"attribute-{place:04}", probability=0.9) for place in range(3)]
    few = [
        record("attribute-0000", method="a@16", prediction="Red.", probability=0.6, tokens_kept=16),
        record("attribute-0001", method="a@16", prediction="blue", probability=0.4, tokens_kept=16),
    ]
    found = cases({"none": none, "a@16": few}, ["a@16"])
    assert [one.steps[0] for one in found] == [Step(0.6, True, 16), Step(0.4, False, 16)]
    assert [len(one.steps) for one in found] == [2, 2]
