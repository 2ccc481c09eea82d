"""The table of docs/results.md about adaptation to few tokens; `generate.py` calls `adaptation`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent.parent / "benchmarks" / "results" / "adaptation.json"
SETTINGS = {"labels": "LoRA with labels", "label-free": "LoRA without labels", "projector": "projector alone"}


def adaptation() -> str:
    """Right answers before and after, and the paired difference, at each count."""
    result = json.loads(RESULT.read_text())
    head = " | ".join(f"{title} | against untouched" for title in SETTINGS.values())
    done = ", ".join(f"{title} {result['seeds'][setting]}" for setting, title in SETTINGS.items())
    lines = [
        f"{result['steps']} steps of 8 rows; seeds done of {result['planned_seeds']} planned: {done} "
        f"(answers are averaged for each question); {result['date']}.",
        "",
        f"| asked | questions | untouched | {head} |",
        "|---|---:|---:|" + "---:|---|" * len(SETTINGS),
    ]
    for label, row in result["counts"].items():
        cells = [f"{row[setting]['right']:.1f} | {_points(row[setting])}" for setting in SETTINGS]
        lines.append(
            f"| {_named(label)} | {row['questions']} | {row['untouched']:.1f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _named(label: str) -> str:
    data, _, method = label.rpartition(" ")
    return f"{data or 'drawn scenes'}, {'all 576 tokens' if method == 'none' else method}"


def _points(found: dict[str, Any]) -> str:
    return f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
