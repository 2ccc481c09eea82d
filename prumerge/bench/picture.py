"""Measured beside predicted, as a picture: time to the first token by stage, and tokens/s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prumerge.bench.case import STAGES
from prumerge.bench.run import Measured, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 0.36  # of a bar


def draw(found: Sequence[Measured], title: str) -> Figure:
    """A pair of bars for each case: measured (with the middle half of its rounds), and predicted, paler."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.6 + 0.6 * len(found)), layout="constrained")
    first, speed = figure.subplots(1, 2, sharey=True)
    for place, one in enumerate(found):
        _stages(first, place, one)
        _whiskers(first, place, one.first_token)
        speed.barh(place - _HEIGHT / 2, one.tokens_per_s.measured.median, _HEIGHT, color="0.45")
        _whiskers(speed, place, one.tokens_per_s)
        if one.tokens_per_s.predicted is not None:
            speed.barh(place + _HEIGHT / 2, one.tokens_per_s.predicted, _HEIGHT, color="0.45", alpha=0.35)
    first.set_yticks(range(len(found)), [f"{one.method}\nbatch {one.batch}" for one in found], fontsize=8)
    first.invert_yaxis()
    first.set_xlabel("ms to the first token (upper bar measured, lower predicted)")
    speed.set_xlabel("tokens/s of whole answers")
    if any(row.predicted is not None and (row.ratio or 1) < 0.2 for row in (o.tokens_per_s for o in found)):
        speed.set_xscale("log")
    for axes in (first, speed):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25, linewidth=0.5)
    first.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def _stages(axes: Any, place: int, one: Measured) -> None:
    """Stages until the first token behind each other."""
    measured = predicted = 0.0
    for number, row in enumerate(one.stages[: len(STAGES) - 1]):
        look = {"height": _HEIGHT, "color": f"C{number}"}
        label = row.name if place == 0 else None
        axes.barh(place - _HEIGHT / 2, row.measured.median, left=measured, label=label, **look)
        measured += row.measured.median
        if row.predicted is not None:
            axes.barh(place + _HEIGHT / 2, row.predicted, left=predicted, alpha=0.35, **look)
            predicted += row.predicted


def _whiskers(axes: Any, place: int, row: Row) -> None:
    one = row.measured
    beside = [[max(0.0, one.median - one.q25)], [max(0.0, one.q75 - one.median)]]
    axes.errorbar([one.median], [place - _HEIGHT / 2], xerr=beside, color="black", linewidth=1, capsize=2)
