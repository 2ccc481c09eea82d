"""The table of docs/results.md about lossless decoding; `generate.py` calls it."""

from __future__ import annotations

from typing import Any

from results_of import of


@of("lossless")
def lossless(result: Any) -> str:
    lines = [
        "| what | draft | read | answers | identical | tokens | passes | one by one | accepted | bytes |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {what} | `{method}` | {reading} | {one['answers']} | {one['identical']} | {one['tokens']} | "
        f"{one['passes']} | {one['one_by_one']} | {one['accepted']:.0%} | {one['bytes']:.2f} x |"
        for what in ("answers", "clips", "pictures")
        for method, readings in result[what].items()
        for reading, one in readings.items()
    ]
    return "\n".join([*lines, "", f"{result['date']}, {result['machine']['processor']}."])
