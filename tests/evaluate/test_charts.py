"""Accuracy against tokens as a picture: what is drawn, where, and that labels can be read."""

from itertools import pairwise

import pytest
from builders import record
from hypothesis import given
from hypothesis import strategies as st

from prumerge.catalogue import built_in, entry
from prumerge.evaluate.charts import (
    PLACES,
    highlighted,
    interval,
    pareto,
    place_of,
    spread,
)
from prumerge.evaluate.records import by_method
from prumerge.evaluate.report import summarise

QUESTIONS = 20


def rows(**right):
    """Rows of methods with so many right answers; prumerge_36 is prumerge@36 at 36 tokens."""
    records = []
    for name, count in right.items():
        method, _, budget = name.rpartition("_")
        label = f"{method}@{budget}" if method else name
        kept = int(budget) if method else 576
        for place in range(QUESTIONS):
            score = float(place < count)
            prediction = "red" if score else "blue"
            changes = {"method": label, "tokens_kept": kept, "score": score, "prediction": prediction}
            records.append(record(f"attribute-{place:04}", **changes))
    return summarise(by_method(records))


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize("name", built_in())
def test_the_place_of_a_method_is_that_of_the_catalogue(name):
    assert place_of(name) == place_of(f"{name}:keep=3@merged") == entry(name).place
    assert place_of(f"spatial+{name}") == entry(name).place
    assert entry(name).place in PLACES


def test_a_line_joins_the_budgets_of_a_method_in_the_panel_of_its_place():
    figure = pareto(rows(none=20, prumerge_36=10, prumerge_144=16, fastv_36=19, fastv_144=19))
    before, inside = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        "before the language model",
        "inside the language model",
    ]
    (line,) = (line for line in before.get_lines() if line.get_label() == "prumerge")
    assert line.get_xydata().tolist() == [[36, 50], [144, 20]]  # errors
    assert "fastv" in [line.get_label() for line in inside.get_lines()]
    assert [tick.get_text() for tick in before.get_xticklabels()] == ["36", "144"]


def test_every_curve_is_named_beside_its_end():
    figure = pareto(rows(none=20, prumerge_36=10, prumerge_144=16, spatial_36=10, spatial_144=16))
    named = [text for text in figure.axes[0].texts if text.get_text() in ("prumerge", "spatial")]
    heights = sorted(text.xyann[1] for text in named)
    assert len(heights) == 2
    assert heights[1] - heights[0] >= 0.05
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_one_budget_is_a_row_of_dots_for_each_method_from_the_best_down():
    figure = pareto(rows(none=20, prumerge_36=10, spatial_36=15, random_36=5, fastv_36=19))
    (axes,) = figure.axes
    assert axes.get_title() == "36 visual tokens"
    places = ["before the language model", "inside the language model"]
    assert labels(axes) == [places[0], "spatial", "prumerge", "random", places[1], "fastv"]
    heights = {label: at for at, label in enumerate(labels(axes))}
    dots = {tuple(line.get_xydata()[0]) for line in axes.get_lines() if line.get_marker() == "o"}
    assert dots == {
        (25, heights["spatial"]),
        (50, heights["prumerge"]),
        (75, heights["random"]),
        (5, heights["fastv"]),
    }
    assert {"75.0", "50.0", "25.0", "95.0", "none 100.0"} <= set(texts(figure))


def test_many_methods_have_a_column_for_each_budget():
    names = [name for name in built_in() if name != "none"]
    figure = pareto(rows(none=20, **{f"{name}_{budget}": 12 for name in names for budget in (36, 144)}))
    assert [axes.get_title() for axes in figure.axes] == ["36 visual tokens", "144 visual tokens"]
    assert set(names) <= set(labels(figure.axes[0]))


def test_tokens_that_were_read_are_said_where_others_were_asked_for():
    records = [
        record(f"attribute-{place:04}", method="fastv@36", tokens_kept=306, score=float(place > 0))
        for place in range(QUESTIONS)
    ]
    assert "95.0 (306)" in texts(pareto(summarise(by_method(records))))


def test_few_methods_are_coloured_the_first_and_the_best_among_them():
    drawn = rows(
        none=20, prumerge_36=5, spatial_36=12, topk_36=9, prumerge_144=7, spatial_144=12, topk_144=15
    )
    colours = highlighted(drawn)
    assert list(colours) == ["prumerge", "spatial", "topk"]
    assert len(set(colours.values())) == 3


def test_an_interval_is_that_of_the_difference_to_none():
    drawn = {row.method: row for row in rows(none=20, prumerge_36=10)}
    gap = drawn["prumerge@36"].against_none
    assert interval(drawn["prumerge@36"], list(drawn.values())) == (100 + gap.low, 100 + gap.high)
    assert interval(drawn["none"], list(drawn.values())) is None
    assert interval(drawn["prumerge@36"], [drawn["prumerge@36"]]) is None


@given(st.lists(st.floats(0, 1), max_size=8))
def test_labels_are_spread_in_their_order_and_no_further_than_needed(wanted):
    found = spread(wanted, 0.1)
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    gaps = [found[high] - found[low] for low, high in pairwise(order)]
    assert all(gap > 0.09 for gap in gaps)
    assert sum(found) == pytest.approx(sum(wanted))


def test_labels_that_are_apart_stay_where_they_are():
    assert spread([0.9, 0.1, 0.5], 0.1) == [0.9, 0.1, 0.5]


@pytest.mark.parametrize(
    "right",
    [{"none": 20}, {"none": 0}, {"prumerge_36": 20}, {"none": 20, "prumerge_36": 0, "spatial_36": 20}],
)
def test_anything_that_was_answered_can_be_drawn(tmp_path, right):
    pareto(rows(**right)).savefig(tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 1000


def test_methods_that_were_asked_fewer_questions_are_left_out():
    drawn = rows(none=20, prumerge_36=10)
    fewer = summarise(by_method([record("attribute-0000", method="topk@36", tokens_kept=36)]))
    assert labels(pareto([*drawn, *fewer]).axes[0]) == ["prumerge"]
