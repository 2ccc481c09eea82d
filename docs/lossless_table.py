"""The table of docs/results.md about lossless decoding; `generate.py` calls it."""

from __future__ import annotations

from typing import Any

from results_of import of


@of("lossless")
def lossless(result: Any) -> str:
    lines = [
        "| what | draft | answers | identical | tokens | passes | one by one | accepted | bytes read |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for what, rows in (("answers", result["answers"]), ("forced on clips", result["forced"])):
        for method, one in rows.items():
            lines.append(
                f"| {what} | `{method}` | {one['answers']} | {one['identical']} | {one['tokens']} | "
                f"{one['passes']} | {one['one_by_one']} | {one['accepted']:.0%} | {one['bytes']:.2f} x |"
            )
    return "\n".join([*lines, "", f"{result['date']}, {result['machine']['processor']}."])
