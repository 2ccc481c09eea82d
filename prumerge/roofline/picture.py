"""The roofline picture: machines as roofs, prompts as points, and time against visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from prumerge.roofline.configs import Model
from prumerge.roofline.estimate import Estimate, estimate, floor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = ("-", "--", ":", "-.")
_MARKERS = "os^D"


def draw(model: Model, estimates: Sequence[Estimate]) -> Figure:
    """Left the prefill of each prompt under its machine's roof, right the time to the first token."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    roof, time = figure.subplots(1, 2)
    machines = list(dict.fromkeys(one.machine.name for one in estimates))
    precisions = list(dict.fromkeys(one.setting.precision.name for one in estimates))
    for (machine, setting), members in groupby(estimates, key=lambda one: (one.machine, one.setting)):
        points, kind = list(members), precisions.index(setting.precision.name) % 4
        look = {
            "color": f"C{machines.index(machine.name) % 10}",
            "linestyle": _STYLES[kind],
            "marker": _MARKERS[kind],
            "label": f"{machine.name} {setting.precision.name}",
        }
        _roof(roof, points, look)
        _time(time, model, points, look)
    roof.set(xscale="log", yscale="log", xlabel="FLOP per byte of memory traffic", ylabel="TFLOP/s")
    roof.set_title("Prefill under the roof, with its visual tokens")
    time.set(yscale="log", xlabel="visual tokens", ylabel="ms to the first token")
    time.set_title("Left of a mark, fewer tokens stop helping")
    time.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    time.yaxis.set_major_formatter("{x:g}")
    time.yaxis.set_minor_formatter("")
    for axes in (roof, time):
        axes.grid(alpha=0.25, which="both", linewidth=0.5)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(f"{model.name}, {estimates[0].workload.text} tokens of text: the best case, predicted")
    return figure


def _roof(axes: Any, points: list[Estimate], look: dict[str, str]) -> None:
    """min(intensity x bandwidth, peak), and where each prefill is: below, since its operations differ."""
    machine, arithmetic = points[0].machine, points[0].setting.precision.arithmetic
    peak, ridge = machine.rate(arithmetic), machine.ridge(arithmetic)
    intensities = [one.prefill.flops / one.prefill.traffic for one in points]
    rates = [one.prefill.flops / one.prefill.time / 1e12 for one in points]
    ends = [min([*intensities, ridge]) / 4, ridge, max([*intensities, ridge]) * 4]
    axes.plot(
        ends, [min(end * machine.bandwidth, peak) / 1e12 for end in ends], color=look["color"], linewidth=1
    )
    axes.plot(intensities, rates, **(look | {"linestyle": ""}))
    offset = (5, -11) if look["linestyle"] == "-" else (-4, 6)
    for one, intensity, rate in zip(points, intensities, rates, strict=True):
        axes.annotate(one.workload.label, (intensity, rate), offset, textcoords="offset points", fontsize=7)


def _time(axes: Any, model: Model, points: list[Estimate], look: dict[str, str]) -> None:
    first = points[0]

    def first_token(count: int) -> float:
        asked = first.workload.with_visual(count)
        return estimate(model, asked, first.machine, first.setting).first_token * 1e3

    most = max(one.workload.kept for one in points)
    ends = floor(model, first.workload, first.machine, first.setting)
    counts = sorted({ends, *(max(1, round(most * step / 48)) for step in range(49))})
    axes.plot(counts, list(map(first_token, counts)), markevery=[counts.index(ends)], **look)
