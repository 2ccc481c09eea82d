"""How a run went, as a picture: the loss of its steps, and what was measured on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def curve(log: Sequence[dict[str, float]], path: Path) -> None:
    """Draw the losses over the steps; held-out ones as a line for each budget. Needs matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    steps = [entry for entry in log if "loss" in entry]
    axes.plot(
        [entry["step"] for entry in steps],
        [entry["loss"] for entry in steps],
        color="0.6",
        linewidth=1,
        label="training, at the budget of each step",
    )
    measured = [entry for entry in log if any(name.startswith("eval_") for name in entry)]
    for name in dict.fromkeys(name for entry in measured for name in entry if name.startswith("eval_")):
        budget = name.removeprefix("eval_").removesuffix("_loss")
        own = [(entry["step"], entry[name]) for entry in measured if name in entry]
        label = {"none": "held out, all tokens", "auto": "held out, own choice"}.get(
            budget, f"held out, {budget} tokens"
        )
        axes.plot(*zip(*own, strict=True), marker="o", markersize=3, linewidth=1.5, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step")
    axes.set_ylabel("loss per answer token")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
