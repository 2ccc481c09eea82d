"""What is printed of pictures without right answers: what stays the same, and what to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prumerge.cli.output import print_table, say

if TYPE_CHECKING:
    from prumerge.evaluate.report import Row


def print_pictures(rows: Sequence[Row], look: Mapping[str, Any] | None, rate: float) -> None:
    """The look at the checkpoint, a line for each method and budget, and the cheapest that keeps `rate`
    percent of the answers."""
    from prumerge.cli.reports import nats
    from prumerge.evaluate.report import BLIND

    if look is not None:
        say(*_sentences(look["check"]))
        print()
    table = []
    for row in rows:
        if row.method == BLIND:
            continue
        same = apart = ""
        if near := row.faithful:
            same, apart = f"{near.same:.1f} [{near.same_low:.1f}, {near.same_high:.1f}]", nats(near)
        first = row.encode_ms + row.reduce_ms + row.prefill_ms
        spread = f" ({row.tokens_low:.0f}-{row.tokens_high:.0f})" if row.tokens_low < row.tokens_high else ""
        times = (f"{first:.1f}", f"{row.decode_ms:.1f}")
        table.append([row.method, f"{row.tokens:.0f}{spread}", same, apart, *times])
    print_table(("method", "tokens", "same answer %", "nats", "first word ms", "rest ms"), table)
    say(_chosen(rows, rate))


def _sentences(check: Mapping[str, Any]) -> list[str]:
    """What the look showed."""

    def span(name: str, unit: str = " %") -> str:
        found = check[name]
        low, mean, high = (f"{found[key]:.1f}".removesuffix(".0") for key in ("low", "mean", "high"))
        return f"{mean}{unit}" if low == high else f"{mean}{unit} ({low}-{high})"

    if check["identical"]:
        same = "none is bit-identical to the untouched model"
    else:
        same = (
            f"none is NOT the untouched model: logits differ by {check['difference']:.2g}; believe nothing "
            "below before that is explained, and report it"
        )
    return [
        f"Self-check on {check['pictures']} pictures: {same}.",
        f"{span('tokens', '')} visual tokens a picture. By the attention of {_whose(check)} "
        f"{span('outliers')} are outliers with all heads as one, {span('outliers_split')} with heads apart "
        f"(the paper: 5.5 %); {span('holds_half')} hold half of the attention.",
    ]


def _whose(check: Mapping[str, Any]) -> str:
    return "the class token" if check["attention"] == "class token" else "all patches"


def _chosen(rows: Sequence[Row], rate: float) -> str:
    from prumerge.evaluate.faithful import cheapest

    choice = cheapest([row for row in rows if row.method != "none"], rate)
    if choice is None:
        return (
            f"No method keeps {rate:g} % of the answers at these budgets; try larger ones by --keep, or a "
            "lower --agreement."
        )
    row, near = choice.row, choice.row.faithful
    assert near is not None
    found = f"{row.method} keeps {near.same:.1f} % of the answers with {row.tokens:.0f} visual tokens"
    if choice.sure:
        return f"Cheapest at {rate:g} %: {found}, surely {near.same_low:.1f} %."
    return (
        f"Cheapest at {rate:g} %: {found}, but its interval begins at {near.same_low:.1f} %; ask about more "
        "pictures (--task-option pictures=all) to be sure."
    )
