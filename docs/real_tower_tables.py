"""The tables of docs/results.md about a real encoder; `generate.py` calls these functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent.parent / "benchmarks" / "results" / "real_tower.json"
SHOWN, HOWS = 36, ("plain", "sizes", "nearest")


def real_tower_outliers() -> str:
    """Figure 3a of the paper on real pictures."""
    result = json.loads(RESULT.read_text())
    rows = ["| pictures | heads | outliers, % of the patches | least to most |", "|---|---|---|---|"]
    for kind, found in result["outliers"].items():
        for heads, share in found.items():
            mean, low, high, least, most = (
                100 * share[name] for name in ("mean", "low", "high", "least", "most")
            )
            rows.append(
                f"| {result['pictures'][kind]} {kind} | {heads} | {mean:.1f} [{low:.1f}, {high:.1f}] | "
                f"{least:.1f} to {most:.1f} |"
            )
    return "\n".join(rows)


def real_tower_layers() -> str:
    """Every method at one count, read plain by one, three and six layers."""
    result = json.loads(RESULT.read_text())
    layers = sorted({row["layers"] for row in _rows(result, "photographs")})
    head = " | ".join(f"{depth} read | same neighbour | against `spatial`" for depth in layers)
    parts = []
    for kind in result["readings"]:
        held = {(row["method"], row["layers"]): row for row in _rows(result, kind, count=SHOWN, how="plain")}
        lines = [
            f"{kind.capitalize()}, {SHOWN} of 576 tokens:",
            "",
            f"| method | {head} |",
            "|---|" + "---:|---:|---|" * len(layers),
        ]
        for method in _ordered(result, kind):
            cells = []
            for depth in layers:
                row = held[method, depth]
                same = f"{100 * row['same_neighbour']['mean']:.0f} %"
                cells += [f"{row['cosine']['mean']:.3f}", same, _against(row["against_grid"])]
            lines.append(f"| `{method}` | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def real_tower_counts() -> str:
    """Every method at every count, read by six layers in all three ways."""
    result = json.loads(RESULT.read_text())
    counts = sorted({row["count"] for row in _rows(result, "photographs")})
    deepest = max(row["layers"] for row in _rows(result, "photographs"))
    parts = []
    for kind in result["readings"]:
        rows = _rows(result, kind, layers=deepest)
        held = {(row["method"], row["count"], row["how"]): row for row in rows}
        lines = [
            f"{kind.capitalize()}, {deepest} layers read:",
            "",
            f"| method | {' | '.join(f'{count} {how}' for count in counts for how in HOWS)} |",
            "|---|" + "---:|" * len(counts) * len(HOWS),
        ]
        for method in _ordered(result, kind):
            found = [held.get((method, count, how)) for count in counts for how in HOWS]
            cells = [f"{row['cosine']['mean']:.3f}{_mark(row)}" if row else "" for row in found]
            lines.append(f"| `{method}` | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _rows(result: dict[str, Any], kind: str, **like: Any) -> list[dict[str, Any]]:
    """The readings of a kind of pictures that have these values."""
    return [
        row for row in result["readings"][kind] if all(row[name] == value for name, value in like.items())
    ]


def _ordered(result: dict[str, Any], kind: str) -> list[str]:
    """The methods, the one of which most is read first: plain, by six layers, at the count that is shown."""
    rows = _rows(result, kind, layers=6, count=SHOWN, how="plain")
    return [row["method"] for row in sorted(rows, key=lambda row: -row["cosine"]["mean"])]


def _against(gap: dict[str, float] | None) -> str:
    return f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]" if gap else ""


def _mark(row: dict[str, Any]) -> str:
    """Whether the difference to the even grid, read plain, is above or below 0 for sure."""
    gap = row["against_grid"]
    return " +" if gap and gap["low"] > 0 else " -" if gap and gap["high"] < 0 else ""
