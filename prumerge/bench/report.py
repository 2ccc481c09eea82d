"""Measurements in words: rows for a table, sentences, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from prumerge.bench.difference import MEANINGS
from prumerge.bench.run import Measured, Row

COLUMNS = ("", "measured", "q25 to q75", "predicted", "ratio", "why")


def title(one: Measured) -> str:
    """Which case a table is of."""
    read = one.read
    kept = sum(read.visual) / len(read.visual)
    return f"{one.method}, batch {one.batch}: {kept:.4g} of {read.encoded} visual tokens, {read.text} of text"


def cells(row: Row) -> list[str]:
    """A row of a case's table; times are milliseconds."""
    name = row.name if row.name in ("tokens/s", "peak MB") else f"{row.name} ms"
    one = row.measured
    spread = "" if one.q25 == one.q75 else f"{short(one.q25)} to {short(one.q75)}"
    predicted = "" if row.predicted is None else short(row.predicted)
    ratio = "" if row.ratio is None else short(row.ratio)
    return [name, short(one.median), spread, predicted, ratio, row.why]


def short(value: float) -> str:
    """Three digits, or all that stand before the point."""
    if value < 1:
        return f"{value:.3g}"
    digits = next(digits for digits, least in ((0, 100), (1, 10), (2, 1)) if value >= least)
    return f"{value:,.{digits}f}"


def sentences(found: Sequence[Measured]) -> list[str]:
    """What fewer tokens gained in each batch size, and what the reasons mean that were found."""
    told = []
    for _, group in groupby(found, key=lambda one: one.batch):
        cases = list(group)
        base = max(cases, key=lambda one: sum(one.read.visual))
        told += [gain(base, one) for one in cases if one is not base]
    given = [row.why for one in found for row in one.rows]
    meanings = [
        f"{name}: {meaning}"
        for name, meaning in MEANINGS.items()
        if any(why.startswith(name) for why in given)
    ]
    if meanings:
        told.append(f"Why, and how much of the difference that is: {'; '.join(meanings)}.")
    return told


def gain(base: Measured, one: Measured) -> str:
    """One case beside the one with the most tokens."""
    first = base.first_token.measured.median / one.first_token.measured.median
    speed = one.tokens_per_s.measured.median / base.tokens_per_s.measured.median
    expected = ""
    if base.first_token.predicted and one.first_token.predicted:
        expected = f" (predicted {base.first_token.predicted / one.first_token.predicted:.2f}x)"
    return (
        f"Batch {one.batch}: {one.method} has the first token {first:.2f}x as fast as {base.method}"
        f"{expected}, and {speed:.2f}x the tokens/s."
    )


def as_dict(one: Measured) -> dict[str, Any]:
    """A case for JSON: milliseconds, tokens/s and megabytes."""
    return {
        "method": one.method,
        "batch": one.batch,
        "visual_tokens": list(one.read.visual),
        "text_tokens": one.read.text,
        "encoded_tokens": one.read.encoded,
        "rows": {
            row.name: {
                **vars(row.measured),
                "predicted": row.predicted,
                "ratio": row.ratio,
                "why": row.why,
            }
            for row in one.rows
        },
        "operators": one.operators,
    }
