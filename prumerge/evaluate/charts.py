"""Accuracy against visual tokens as a picture: curves of a few methods, or a row of dots for each of many.

Both show errors on a logarithmic scale, on which methods that are nearly as good as all tokens stay apart
and those that fail still fit, with 95 % intervals of what separates a method from `none`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from prumerge.catalogue import entry, names
from prumerge.evaluate.report import BLIND, Row, complete

PLACES = ("vision tower", "before the language model", "language model")
CURVES = 8  # methods that can be told apart as curves

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a6761d")  # after Okabe and Ito: seen by all
_GREY, _PALE = "#6b6b6b", "#d9d9d9"
_LEAST_ERROR = 0.3  # percent: where a scale of errors ends
_TICKS = (0, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99)


RIGHT = "% of questions right"


def pareto(rows: Sequence[Row], measure: str = RIGHT) -> Any:
    """A matplotlib Figure of what `Row.accuracy` holds, named `measure`.

    Curves over the number of tokens, in a panel for each place where methods work; of
    many methods, or at one budget, dots in a column for each budget."""
    rows = complete(rows)
    curves = _by_method(rows)
    several = any(len({row.tokens for row in points}) > 1 for points in curves.values())
    label = f"{measure} (scale of errors)"
    if several and len(curves) <= CURVES:
        figure = _curves(rows, curves)
        figure.axes[0].set_ylabel(label)
    else:
        figure = _dots(rows, curves)
        figure.supxlabel(label, fontsize=10)
    return figure


def name_of(row: Row) -> str:
    """The method of a label without its budget: prumerge of prumerge@36."""
    return row.method.rpartition("@")[0] or row.method


def budget_of(row: Row) -> str:
    """36 of prumerge@36; auto where the method chose."""
    return row.method.rpartition("@")[2] if "@" in row.method else ""


def place_of(method: str) -> str:
    """Where a method works: of a chain, its last part."""
    name = method.rpartition("+")[2].partition("@")[0].partition(":")[0]
    return entry(name).place if name in names() else PLACES[1]


def highlighted(rows: Sequence[Row]) -> dict[str, str]:
    """Colours of the few methods to look at: the first, and the best at each budget; the others are grey."""
    best: dict[str, Row] = {}
    for row in _methods(rows):
        key = f"{budget_of(row)} {place_of(name_of(row))}"
        if key not in best or row.accuracy > best[key].accuracy:
            best[key] = row
    first = [name_of(row) for row in _methods(rows)[:1]]
    chosen = dict.fromkeys([*first, *(name_of(row) for row in best.values())])
    return dict(zip(chosen, _COLOURS, strict=False))


def interval(row: Row, rows: Sequence[Row]) -> tuple[float, float] | None:
    """Percent right between which a method is, given what `none` has: 95 % of the paired difference."""
    none = next((one for one in rows if one.method == "none"), None)
    if none is None or row.against_none is None:
        return None
    return none.accuracy + row.against_none.low, none.accuracy + row.against_none.high


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights for labels, as near as can be to those wanted and at least `gap` apart, in the same order."""
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    heights = [wanted[place] for place in order]
    for _ in range(200):
        for low in range(len(heights) - 1):
            lacking = gap - (heights[low + 1] - heights[low])
            if lacking > 1e-6:
                heights[low] -= lacking / 2
                heights[low + 1] += lacking / 2
    result = [0.0] * len(wanted)
    for place, height in zip(order, heights, strict=True):
        result[place] = height
    return result


def _methods(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.method not in ("none", BLIND)]


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in _methods(rows):
        found[name_of(row)].append(row)
    return {name: sorted(points, key=lambda row: row.tokens) for name, points in found.items()}


def _error(right: float) -> float:
    return max(_LEAST_ERROR, 100 - right)


def _bounds(rows: Sequence[Row]) -> tuple[float, float]:
    """The largest and the smallest error to be shown, blind guessing aside where all are far better."""
    shown = [
        value for row in rows if row.method != BLIND for value in (interval(row, rows) or (row.accuracy,))
    ]
    shown += [row.accuracy for row in rows if row.method != BLIND]
    largest, smallest = _error(min(shown)), _error(max(shown))
    return min(100, largest * 1.15), smallest / 1.15


def _scale(axis: Any, bounds: tuple[float, float]) -> None:
    """Percent right, on a logarithmic scale of errors."""
    largest, smallest = bounds
    room = (largest / smallest) ** 0.09  # for a figure
    ticks: list[int] = []
    for right in reversed(_TICKS):
        if smallest <= 100 - right <= largest and (not ticks or 100 - right >= room * (100 - ticks[-1])):
            ticks.append(right)
    axis.set_ticks([100 - tick for tick in ticks], [str(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def _curves(rows: Sequence[Row], curves: dict[str, list[Row]]) -> Any:
    from matplotlib.figure import Figure

    places = [place for place in PLACES if any(place_of(name) == place for name in curves)]
    colours, bounds = highlighted(rows), _bounds(rows)
    figure = Figure(figsize=(4 + 3.2 * len(places), 4.8), layout="constrained")
    panels = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
    for axes, place in zip(panels, places, strict=True):
        axes.set(xscale="log", yscale="log", ylim=bounds)
        _scale(axes.yaxis, bounds)
        axes.set_title(_titled(place), fontsize=10)
        axes.set_xlabel("visual tokens, mean over pictures and layers")
        axes.spines[["top", "right"]].set_visible(False)
        members = {name: points for name, points in curves.items() if place_of(name) == place}
        for name, points in sorted(members.items(), key=lambda item: item[0] in colours):
            _curve(axes, points, rows, colours.get(name))
        _token_ticks(axes, [row.tokens for points in members.values() for row in points])
        _levels(axes, rows, bounds)
        _end_labels(axes, members, colours, bounds)
    _caption(figure, rows)
    return figure


def _curve(axes: Any, points: Sequence[Row], rows: Sequence[Row], colour: str | None) -> None:
    heights = [_error(row.accuracy) for row in points]
    bars = [interval(row, rows) for row in points]
    axes.plot(
        [row.tokens for row in points],
        heights,
        color=colour or _GREY,
        linewidth=2 if colour else 1,
        alpha=1 if colour else 0.6,
        marker="o",
        markersize=5 if colour else 3,
        label=name_of(points[0]),
    )
    if colour:
        for row, bar in zip(points, bars, strict=True):
            if bar:
                axes.plot(
                    [row.tokens] * 2, [_error(end) for end in bar], color=colour, linewidth=1, alpha=0.6
                )


def _token_ticks(axes: Any, counts: Sequence[float]) -> None:
    """The numbers of tokens that were read, as far as they can be written side by side."""
    ticks: list[int] = []
    for count in sorted({round(count) for count in counts}):
        if not ticks or count > 1.25 * ticks[-1]:
            ticks.append(count)
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()


def _levels(axes: Any, rows: Sequence[Row], bounds: tuple[float, float]) -> None:
    """Lines at all tokens and, where it is in sight, at answers that never look."""
    for row in rows:
        if row.method in ("none", BLIND) and bounds[1] <= _error(row.accuracy) <= bounds[0]:
            axes.axhline(_error(row.accuracy), color="black", linewidth=0.8, linestyle="--", zorder=0)
            text = f"{row.method} {row.accuracy:.1f}" + (" (all tokens)" if row.method == "none" else "")
            axes.text(
                0.01,
                _error(row.accuracy),
                text,
                transform=axes.get_yaxis_transform(),
                fontsize=8,
                va="bottom",
            )


def _end_labels(
    axes: Any, members: dict[str, list[Row]], colours: dict[str, str], bounds: tuple[float, float]
) -> None:
    """The name of each curve beside its end."""
    from math import log

    def height(row: Row) -> float:
        return log(bounds[0] / _error(row.accuracy)) / log(bounds[0] / bounds[1])

    places = spread([height(points[-1]) for points in members.values()], 0.055)
    for (name, points), at in zip(members.items(), places, strict=True):
        colour, end = colours.get(name, _GREY), points[-1]
        axes.annotate(
            name,
            xy=(end.tokens, _error(end.accuracy)),
            xytext=(1.04, at),
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            fontweight="bold" if name in colours else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6},
        )


def _dots(rows: Sequence[Row], curves: dict[str, list[Row]]) -> Any:
    from matplotlib.figure import Figure

    colours, bounds = highlighted(rows), _bounds(rows)
    by_budget = {
        budget: {name_of(row): row for row in _methods(rows) if budget_of(row) == budget}
        for budget in dict.fromkeys(map(budget_of, _methods(rows)))
    }
    budgets = [one for one, found in by_budget.items() if 3 * len(found) >= len(curves)] or list(by_budget)
    shown = {name for budget in budgets for name in by_budget[budget]}
    curves = {name: points for name, points in curves.items() if name in shown}
    lines = _lines(curves, by_budget[budgets[0]] if budgets else {})
    height = 1.3 + 0.2 * max(3, len(lines))
    figure = Figure(figsize=(2.8 + 2.5 * max(1, len(budgets)), height), layout="constrained")
    panels = figure.subplots(1, max(1, len(budgets)), sharey=True, squeeze=False)[0]
    for axes in panels:
        axes.set(xscale="log", xlim=bounds, ylim=(len(lines) - 0.5, -0.8))
        _scale(axes.xaxis, bounds)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        for row in rows:
            if row.method == "none":
                axes.axvline(_error(row.accuracy), color="black", linewidth=0.8, linestyle="--", zorder=0)
                axes.text(_error(row.accuracy), -0.75, f"none {row.accuracy:.1f}", fontsize=8, ha="right")
    for axes, budget in zip(panels, budgets, strict=False):
        if budget:
            own_choice = "the method's own choice of tokens"
            axes.set_title(own_choice if budget == "auto" else f"{budget} visual tokens", fontsize=10, pad=10)
        for at, name in enumerate(lines):
            if there := by_budget[budget].get(name):
                _dot(axes, at, there, rows, colours.get(name))
    panels[0].set_yticks(range(len(lines)), [name if name in curves else _titled(name) for name in lines])
    for label, name in zip(panels[0].get_yticklabels(), lines, strict=True):
        label.set(fontsize=9, color=colours.get(name, "black" if name not in curves else _GREY))
        if name not in curves:
            label.set(fontstyle="italic", fontsize=8)
        elif name in colours:
            label.set(fontweight="bold")
    _caption(figure, rows, "; in brackets: tokens read" if len(budgets) > 1 else "; (tokens read)")
    return figure


def _lines(curves: dict[str, list[Row]], first: dict[str, Row]) -> list[str]:
    """Methods from the best at the first budget down, under the place where they work."""

    def right(name: str) -> float:
        return (first.get(name) or curves[name][0]).accuracy

    ordered = sorted(curves, key=lambda name: (PLACES.index(place_of(name)), -right(name)))
    groups = [(place, list(members)) for place, members in groupby(ordered, key=place_of)]
    return [line for place, members in groups for line in ([place] if len(groups) > 1 else []) + members]


def _dot(axes: Any, at: int, row: Row, rows: Sequence[Row], colour: str | None) -> None:
    """A method at a budget with its interval; in figures what is right, and tokens read if not as asked."""
    axes.axhline(at, color=_PALE, linewidth=0.5, zorder=0)
    if bar := interval(row, rows):
        axes.plot([_error(end) for end in bar], [at, at], color=colour or _GREY, linewidth=1.5, alpha=0.5)
    axes.plot(_error(row.accuracy), at, marker="o", markersize=5, color=colour or _GREY)
    budget = budget_of(row)
    read = "" if budget == str(round(row.tokens)) else f" ({row.tokens:.0f})"
    axes.annotate(
        f"{row.accuracy:.1f}{read}",
        (1.01, at),
        xycoords=("axes fraction", "data"),
        fontsize=8,
        va="center",
        color=colour or _GREY,
        annotation_clip=False,
    )


def _titled(place: str) -> str:
    return place if place.startswith("before") else f"inside the {place}"


def _caption(figure: Any, rows: Sequence[Row], brackets: str = "") -> None:
    if any(row.against_none for row in rows):
        figure.suptitle(
            f"{max(row.questions for row in rows)} questions; bars: 95 % interval of the difference to none"
            + brackets,
            fontsize=9,
            color=_GREY,
            x=0.99,
            ha="right",
        )
