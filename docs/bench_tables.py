"""The tables of docs/bench.md; `generate.py` calls these functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent.parent / "benchmarks" / "results" / "bench_tiny.json"


def bench_tiny() -> str:
    """The embedded model: every row of the first batch size, and what comes out of the others."""
    told = json.loads(RESULT.read_text())
    cases = told["cases"]
    first = cases[0]["batch"]
    machine = told["machine"]
    head = (
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} threads, load "
        f"{told['load'][0]:.1f} before and {told['load'][1]:.1f} after, {told['date']}; "
        f"predicted for this machine, {told['predicted_for']['note']}. "
        f"{told['rounds']} rounds, {told['new_tokens']} new tokens."
    )
    rows = [_row(case, name, row) for case in cases if case["batch"] == first for name, row in _rows(case)]
    few = [
        _row(case, name, row)
        for case in cases
        if case["batch"] != first
        for name, row in _rows(case)
        if name in ("first token", "tokens/s")
    ]
    sentences = [f"- {word}" for word in told["words"] if word.startswith(("Batch", "Why"))]
    names = ("case", "quantity", "measured", "q25 to q75", "predicted", "ratio", "why")
    top = [f"| {' | '.join(names)} |", "|---|---|---:|---:|---:|---:|---|"]
    return "\n".join([head, "", *top, *rows, *few, "", *sentences])


def _rows(case: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(case["rows"].items())


def _row(case: dict[str, Any], name: str, row: dict[str, Any]) -> str:
    unit = "" if name in ("tokens/s", "peak MB") else " ms"
    spread = "" if row["q25"] == row["q75"] else f"{_short(row['q25'])} to {_short(row['q75'])}"
    predicted, ratio = (_short(row[key]) if row[key] else "" for key in ("predicted", "ratio"))
    cells = [f"`{case['method']}`, batch {case['batch']}", name + unit, _short(row["median"]), spread]
    return f"| {' | '.join([*cells, predicted, ratio, row['why']])} |"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
