"""The tables of docs/results.md about sizes and positions together; `generate.py` calls these functions."""

from __future__ import annotations

from typing import Any

from results_of import of

READERS = {
    "real": "`real`, easy-VQA",
    "real-again": "`real` asked again, other pictures",
    "tiny-full": "`tiny:full`",
    "tiny-full-unseen": "`tiny:full`, unseen scenes",
    "tiny-hard": "`tiny:hard`, hard scenes",
    "tiny": "`tiny`",
    "tiny-unseen": "`tiny`, unseen scenes",
}
READINGS = {
    "neither": "compact",
    "positions": "original",
    "sizes": "compact, sizes",
    "both": "original, sizes",
}
FEW = (
    "medoids", "scope", "divprune", "spatial", "prumerge_plus", "prumerge", "topk", "visionzip", "vispruner",
    "prunesid", "pool", "random",
)  # fmt: skip
FIRST = [name for name in READERS if name != "real-again"]
"""Whose answers the plan's rules were written for."""
AGAIN = [name for name in READERS if name != "real"]
"""The same with the second answers of `real`."""


@of("positions")
def positions(result: Any) -> str:
    """Right answers and nats of each reading at 36 tokens, a table for each reader."""
    return "\n\n".join(_table(result[name], told) for name, told in READERS.items())


def _table(reader: Any, told: str) -> str:
    cells = {(row["method"], row["reading"]): row for row in reader["rows"]}
    heads = " | ".join(READINGS.values())
    lines = [
        f"{told}: {reader['untouched']['right']:.1f} % of {reader['questions']} right with all 576. At 36 "
        "tokens, % right (left) and nats from what it says untouched (right):",
        "",
        f"| method | {heads} | {heads} |",
        "|---|" + "---:|" * (2 * len(READINGS)),
    ]
    for name in FEW:
        rows = [cells[f"{name}@36", reading] for reading in READINGS]
        right, nats = (f"{row['right']:.1f}" for row in rows), [row["nats"] for row in rows]
        least = min(nats)
        told_nats = (f"**{one:.3f}**" if one == least else f"{one:.3f}" for one in nats)
        lines.append(f"| `{name}` | {' | '.join([*right, *told_nats])} |")
    return "\n".join(lines)


@of("positions")
def positions_told(result: Any) -> str:
    """What the plan's rules say, worked out."""
    lines = []
    for name, told in READERS.items():
        counts = ", ".join(
            f"{apart.count(1)} nearer and {apart.count(-1)} farther than {words}"
            for second, words in (("neither", "compact and plain"), ("sizes", "sizes at compact positions"))
            for apart in [[_apart(result[name], method, second) for method in FEW]]
        )
        lines.append(f"- {told}, of twelve methods at 36 tokens, original positions with sizes: {counts}.")
    most = all(
        [_apart(result[name], method, "sizes") for method in FEW].count(1) > len(FEW) / 2
        for name in _never_saw_few(FIRST)
    )
    recommended, again = (_recommended(result, readers) for readers in (FIRST, AGAIN))
    kept, gained, lost = _held(result)
    lines += [
        "- With `size_bias`, positions become original: "
        f"{'yes' if most and not _loses(result, FIRST, 'medoids', 'sizes') else 'no'}.",
        f"- Both are recommended for: {_names(recommended)}.",
        f"- `size_bias` is on by default: {'yes' if len(recommended) == len(FEW) else 'no'}.",
        f"- Asked again, {kept} of {kept + len(lost)} verdicts on `real` held (lost: {_names(lost)}). Of "
        f"those that were not told before, now nearer: {_names(gained[1])}; farther: {_names(gained[-1])}; "
        f"still not told: {_names(gained[0])}.",
        f"- With these answers both are recommended for: {_names(again)}.",
    ]
    return "\n".join(lines)


def _never_saw_few(readers: list[str]) -> list[str]:
    return [name for name in readers if name.startswith(("real", "tiny-full"))]


def _recommended(result: Any, readers: list[str]) -> list[str]:
    """For which methods the plan's rule recommends original positions with sizes, by these readers."""
    return [
        method
        for method in FEW
        if all(_apart(result[name], method, "neither") == 1 for name in _never_saw_few(readers))
        and not _loses(result, readers, method, "neither")
    ]


def _held(result: Any) -> tuple[int, dict[int, list[str]], list[str]]:
    """How many verdicts on `real` (both beside neither) it has again, which methods that had none have one
    now, and which have it no longer."""
    kept, gained, lost = 0, {1: list[str](), -1: list[str](), 0: list[str]()}, []
    for method in FEW:
        before, after = (_apart(result[name], method, "neither") for name in ("real", "real-again"))
        if not before:
            gained[after].append(method)
        elif before == after:
            kept += 1
        else:
            lost.append(method)
    return kept, gained, lost


def _names(methods: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in methods) or "none"


def _apart(reader: Any, method: str, second: str) -> int:
    """1 where original positions with sizes are nearer to the untouched reader at 36 tokens than the `second`
    reading is, -1 where they are farther, 0 where it is not told."""
    [nats] = [
        one["nats"]
        for one in reader["comparisons"]
        if (one["method"], one["first"], one["second"]) == (f"{method}@36", "both", second)
    ]
    return 0 if nats["p"] >= 0.05 else 1 if nats["difference"] < 0 else -1


def _loses(result: Any, readers: list[str], method: str, second: str) -> bool:
    """Whether original positions with sizes have fewer right than the `second` reading, of any of these
    readers at any count."""
    return any(
        one["right"]["p"] < 0.05 and one["right"]["difference"] < 0
        for reader in readers
        for one in result[reader]["comparisons"]
        if one["method"].startswith(f"{method}@") and (one["first"], one["second"]) == ("both", second)
    )
