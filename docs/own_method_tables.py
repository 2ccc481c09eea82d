"""The tables of docs/results.md about medoids, sizes and two readers; `generate.py` calls these functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from results_of import of

READERS = {"tiny": "saw subsets", "tiny:full": "only ever saw all tokens"}


@of("own_method")
def own_method(result: Any) -> str:
    """Right answers of every method at every count, plain and with sizes, for each reader."""
    counts = sorted({row["count"] for row in result["rows"]} - {576})
    head = " | ".join(f"{count} | sizes" for count in counts)
    parts = []
    for model, seen in READERS.items():
        cells = {
            (row["method"], row["count"], row["reading"]): row
            for row in result["rows"]
            if row["model"] == model
        }
        names = {method for method, count, _ in cells if count != 576}
        whole = cells["none", 576, "plain"]["right"]
        lines = [
            f"`{model}`, which {seen}: {whole:.1f} % right with all 576; % right, 6 x {result['questions']} "
            f"questions, {result['date']}:",
            "",
            f"| method | {head} |",
            "|---|" + "---:|---:|" * len(counts),
        ]
        for name in sorted(names, key=lambda name: (-cells[name, counts[0], "plain"]["right"], name)):
            row = " | ".join(
                f"{cells[name, count, reading]['right']:.1f}"
                for count in counts
                for reading in ("plain", "sizes")
            )
            lines.append(f"| `{name}` | {row} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


@of("own_method")
def own_method_told(result: Any) -> str:
    """Who is better than whom after Holm's correction, in sentences: medoids against others, and sizes."""
    told = []
    for model in READERS:
        for count in sorted({row["count"] for row in result["rows"]} - {576}):
            others = list(_against(result, model, count))
            better = [name for name, found in others if found["p"] < 0.05 and found["difference"] > 0]
            worse = [name for name, found in others if found["p"] < 0.05 and found["difference"] < 0]
            level = [name for name, found in others if found["p"] >= 0.05]
            told.append(
                f"- `{model}`, {count} tokens: `medoids` is better than {_listed(better)}, worse than "
                f"{_listed(worse)}; not told apart from {_listed(level)}."
            )
            told.append(f"- `{model}`, {count} tokens, sizes: {_by_sizes(result, model, count)}.")
    return "\n".join(told)


def _by_sizes(result: dict[str, Any], model: str, count: int) -> str:
    """Which methods sizes make better, and which worse, and by how much."""
    gains = {
        pair["first"]["method"]: pair["comparison"]["difference"]
        for pair in result["comparisons"]
        if pair["first"] == {**pair["second"], "reading": "sizes"}
        and pair["first"]["model"] == model
        and pair["first"]["count"] == count
        and pair["comparison"]["p"] < 0.05
    }
    better = sorted((name for name in gains if gains[name] > 0), key=lambda name: -gains[name])
    worse = sorted((name for name in gains if gains[name] < 0), key=lambda name: gains[name])

    def listed(names: list[str]) -> str:
        return ", ".join(f"`{name}` {gains[name]:+.1f}" for name in names) or "none"

    return f"better {listed(better)}; worse {listed(worse)}"


def _against(result: dict[str, Any], model: str, count: int) -> Iterator[tuple[str, dict[str, float]]]:
    for pair in result["comparisons"]:
        first, second = pair["first"], pair["second"]
        plain = first["reading"] == second["reading"] == "plain"
        if plain and first["model"] == model and first["count"] == count and first["method"] == "medoids":
            yield second["method"], pair["comparison"]


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
