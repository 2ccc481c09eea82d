"""Why a time is not the predicted one: parts that were measured, and the largest of them in words."""

from dataclasses import replace

import pytest

from prumerge.bench.difference import MEANINGS, TOLERATED, Parts, divided, reason
from prumerge.bench.report import short
from prumerge.bench.timer import Spread
from prumerge.bench.trace import Traced
from prumerge.roofline.cost import Op
from prumerge.roofline.estimate import Stage
from prumerge.roofline.hardware import Machine

MACHINE = Machine("here", "this machine", {"fp32": 1e9}, 1e9)
# 4 ms of a product that arithmetic limits, 1 ms of a sum that memory limits
STAGE = Stage(
    "prefill",
    (Op("product", flops=4_000_000, arithmetic="fp32"), Op("sum", read=1e6, arithmetic="fp32")),
    MACHINE,
)
TRACED = Traced(operators=100, products=1, flops=4_000_000, products_ms=6.0, others_ms=3.0)


def difference(parts):
    return sum((parts.launches, parts.products, parts.others, parts.python, parts.scatter)) + max(
        parts.extra_flops, 0
    )


def around(median, width=0.0):
    return Spread(median, median - width, median + width)


@pytest.mark.parametrize("flops", [4_000_000, 6_000_000])
def test_parts_add_up_to_the_difference(flops):
    parts = divided([14.0, 13.0, 20.0], STAGE, replace(TRACED, flops=flops), launch=0.01)
    assert difference(parts) == pytest.approx(14.0 - 5.0)
    assert (parts.launches, parts.others, parts.scatter) == pytest.approx((1.0, 2.0, 1.0))
    assert parts.waiting == pytest.approx(1.0)


def test_of_steps_the_parts_are_those_of_one():
    four = Traced(400, 4, 16_000_000, 24.0, 12.0)
    assert divided([14.0], STAGE, four, launch=0.01, steps=4) == divided([14.0], STAGE, TRACED, launch=0.01)


def test_of_a_stage_that_the_roofline_does_not_know_everything_is_a_difference():
    assert difference(divided([14.0], None, TRACED, launch=0.01)) == pytest.approx(14.0)


def test_parts_of_stages_are_summed_to_those_of_an_answer():
    one = Parts(launches=1, python=2)
    assert one + one * 3 == Parts(launches=4, python=8)


@pytest.mark.parametrize(
    ("measured", "parts", "busy", "said"),
    [
        (around(10 * (1 + TOLERATED)), Parts(launches=9), False, ""),
        (around(10 * (1 - TOLERATED)), Parts(waiting=9), False, ""),
        (around(20), Parts(launches=6, python=4), False, "launches 60%"),
        (around(20), Parts(products=7, others=3), False, "slow products 70%"),
        (around(20), Parts(products=3, others=7), False, "other operators 70%"),
        (around(20), Parts(extra_flops=8, others=2), False, "more FLOPs 80%"),
        (around(20), Parts(python=8, others=2), False, "Python 80%"),
        (around(20), Parts(scatter=8, others=2), False, "scatter 80%"),
        (around(20), Parts(products=30, others=-20), False, "slow products 100%"),
        (around(4), Parts(extra_flops=-5, waiting=1), False, "fewer FLOPs 83%"),
        (around(4), Parts(extra_flops=-1, waiting=9), False, "caches 100%"),
        (around(4), Parts(extra_flops=-1, waiting=1), False, ""),
        (around(20, 8), Parts(launches=9), True, "machine busy"),
        (around(20, 1), Parts(launches=9), True, "launches 90%"),
        (around(20, 8), Parts(launches=9), False, "launches 90%"),
    ],
)
def test_the_reason_is_the_largest_part_and_its_share(measured, parts, busy, said):
    assert reason(measured, 10.0, parts, busy=busy) == said
    assert not said or any(said.startswith(name) for name in MEANINGS)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_figures_are_short(value, text):
    assert short(value) == text
