"""The tables of docs/results.md about `real`, a real language model behind a real tower; `generate.py` calls
`real_llava_learned` and `real_llava`."""

from __future__ import annotations

from typing import Any

from results_of import of

COUNTS = (16, 36, 64, 144)


@of("real_llava")
def real_llava_learned(result: Any) -> str:
    """How far it came: the curve, and what it answers with all tokens."""
    lines = ["| seconds | phase | steps | exact answers to held-out questions, % |", "|---:|---|---:|---:|"]
    phase = ""
    for line in result["training"]:
        phase = line.get("phase", phase)
        if "exact" in line:
            lines.append(f"| {line['at']:.0f} | {phase} | {line['step']} | {100 * line['exact']:.1f} |")
    whole = _row(result, "none")
    kinds = ", ".join(
        f"{kind} {one['right']:.1f} ({one['questions']})" for kind, one in result["kinds"].items()
    )
    sees, stamps = _points(result["sees"]), _points(result["sees_stamps"])
    about = [
        f"easy-VQA's test split, all 576 tokens: {whole['right']:.1f} % of {result['questions']} right, the "
        f"best answer without a look {result['blind']:.1f}: {sees} points. By kind: {kinds}.",
        f"Held-out stamps: of four captions its own is the likeliest for {whole['chosen']:.1f} % of "
        f"{result['stamps']}, {stamps} points from chance; {whole['nats']:.2f} nats a token.",
    ]
    return "\n".join([*lines, "", *(f"- {one}" for one in about)])


@of("real_llava")
def real_llava(result: Any) -> str:
    """Every method at every count; + and - where the difference to the even grid excludes 0."""
    names = {row["method"].partition("@")[0] for row in result["methods"]} - {"none"}
    at = {row["method"]: row for row in result["methods"]}
    order = sorted(names, key=lambda name: (-at.get(f"{name}@36", {"right": 0})["right"], name))
    head = " | ".join(f"{count}" for count in COUNTS)
    lines = [
        f"easy-VQA, % right (left), and own caption chosen among four, % (right). {result['date']}.",
        "",
        f"| method | {head} | {head} |",
        "|---|" + "---:|" * (2 * len(COUNTS)),
    ]
    for name in order:
        rows = [at.get(f"{name}@{count}") for count in COUNTS]
        right = [_cell(row, "right", "against_grid") for row in rows]
        stamps = [_cell(row, "chosen", "stamps_against_grid") for row in rows]
        lines.append(f"| `{name}` | {' | '.join([*right, *stamps])} |")
    whole = at["none"]
    lines.append(f"| all 576 | {whole['right']:.1f} |  |  |  | {whole['chosen']:.1f} |  |  |  |")
    return "\n".join(lines)


def _row(result: dict[str, Any], label: str) -> dict[str, Any]:
    return next(row for row in result["methods"] if row["method"] == label)


def _cell(row: dict[str, Any] | None, value: str, gap: str) -> str:
    if row is None:
        return ""
    against = row[gap]
    mark = " +" if against and against["low"] > 0 else " -" if against and against["high"] < 0 else ""
    return f"{row[value]:.1f}{mark}"


def _points(found: dict[str, float]) -> str:
    return f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
