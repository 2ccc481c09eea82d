"""Each claim of the paper beside what was seen here, and on what; `generate.py` calls `claims`.

What decides is an interval: "holds" where it excludes 0 on the paper's side, "against" where it excludes 0 on
the other, "undecided" where it holds 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
HEAD = (
    "drawn scenes, embedded model",
    "easy-VQA, embedded model that learned a little of it",
    "easy-VQA, a real ViT-S/14 and SmolLM2 that only ever saw all tokens",
    "photographs and stamps, a real ViT-S/14 read by six layers",
)


def claims() -> str:
    """A row for each claim; cells are differences in points of questions, or in hundredths of cosine."""
    rows = [
        ("Figure 3a: 5.5 % of the patches are outliers", *_outliers()),
        ("Table 1: PruMerge a little below untouched", *_below("prumerge")),
        ("Table 1: PruMerge+ between the two", *_above("prumerge_plus", "prumerge", "table_1")),
        ("Table 3: clips survive 12.5 % of their tokens", *_clips()),
        ("Table 4: above an even grid at equal tokens", *_above("prumerge", "spatial", "table_4")),
        ("Table 4: above the first tokens", *_above("prumerge", "sequential", "table_4")),
        ("Table 5: merging adds to selection", *_above("prumerge", "topk", "table_5")),
        ("Table 6: LoRA with few tokens adds", *_adapted()),
    ]
    real = dict(zip((name for name, *_ in rows), _of_real_parts(), strict=True))
    lines = [f"| claim | {' | '.join(HEAD)} |", "|---|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *(f"| {' | '.join([*row[:3], real[row[0]], *row[3:]])} |" for row in rows)])


def _of_real_parts() -> tuple[str, ...]:
    """The claims on the LLaVA of real parts, at 36 tokens; without an interval where none was planned."""
    if not (RESULTS / "real_llava.json").exists():
        return ("", *(["not measured yet"] * 7))
    rows = {row["method"]: row for row in _result("real_llava")["methods"]}

    def above(method: str, rival: str) -> str:
        gap = rows[f"{method}@36"]["right"] - rows[f"{rival}@36"]["right"]
        return f"{gap:+.1f} points at 36"

    few = rows["prumerge@36"]
    return (
        "",
        f"{_points(few['against_none'])} with 36",
        above("prumerge_plus", "prumerge"),
        "",
        f"{_judged(few['against_grid'], 1)} at 36",
        above("prumerge", "sequential"),
        above("prumerge", "topk"),
        "",
    )


def _outliers() -> tuple[str, str, str]:
    auto = next(row for row in _result("paper_tables")["table_1"] if row["method"] == "prumerge@auto")
    drawn = f"{(auto['tokens'] - 1) / 5.76:.1f} % (the extra token left out)"
    real = [
        f"{100 * share['joint']['mean']:.1f} % of {kind} (heads apart {100 * share['split']['mean']:.1f})"
        for kind, share in _result("real_tower")["outliers"].items()
    ]
    return drawn, "", "; ".join(real)


def _below(method: str) -> tuple[str, str, str]:
    """How far below the untouched model."""
    auto = next(row for row in _result("paper_tables")["table_1"] if row["method"] == f"{method}@auto")
    easy = next(row for row in _result("easy_vqa")["methods"] if row["method"] == f"{method}@36")
    drawn = f"{_points(auto['against'])} with {auto['tokens']:.0f} tokens"
    cosines = [
        f"{_reading(kind, method)['cosine']['mean']:.2f} of 1 on {kind}" for kind in ("photographs", "stamps")
    ]
    return drawn, f"{_points(easy['against_none'])} with 36", f"cosine {', '.join(cosines)} (36)"


def _above(method: str, rival: str, table: str) -> tuple[str, str, str]:
    """How far one is above another at equal tokens."""
    drawn = _drawn(method, rival, table)
    pairs = {(pair["first"], pair["second"]): pair["comparison"] for pair in _result("easy_vqa")["rivals"]}
    easy = ""
    for names, sign in (((method, rival), 1), ((rival, method), -1)):
        if found := pairs.get((f"{names[0]}@36", f"{names[1]}@36")):
            easy = f"{_judged(found, sign)} at 36"
    return drawn, easy, _on_the_tower(method, rival)


def _drawn(method: str, rival: str, table: str) -> str:
    rows = {row["method"]: row for row in _result("paper_tables")[table]}
    if table == "table_1":
        one, other = (rows[f"{name}@auto"] for name in (method, rival))
        gap = one["accuracy"] - other["accuracy"]
        return f"{gap:+.1f} points with {one['tokens']:.0f} tokens against {other['tokens']:.0f}"
    counts = [name.partition("@")[2] for name in rows if name.startswith(f"{rival}@")]
    return "; ".join(f"{_judged(rows[f'{rival}@{count}']['against'], -1)} at {count}" for count in counts)


def _on_the_tower(method: str, rival: str) -> str:
    """Differences of mean cosines at 36; against the grid with the interval that was planned."""
    cells = []
    for kind in ("photographs", "stamps"):
        one, other = _reading(kind, method), _reading(kind, rival)
        if rival == "spatial":
            gap = {name: 100 * one["against_grid"][own] for name, own in _NAMES.items()}
            cells.append(f"{_judged(gap, 1)} on {kind}")
        else:
            gap_of_means = 100 * (one["cosine"]["mean"] - other["cosine"]["mean"])
            cells.append(f"{gap_of_means:+.1f} on {kind}")
    return f"{'; '.join(cells)} (36)"


_NAMES = {"difference": "mean", "low": "low", "high": "high"}


def _clips() -> tuple[str, str, str]:
    rows = {row["method"]: row for row in _result("video")["methods"]}
    few = rows["prumerge@36"]
    share = 100 * few["tokens"] / rows["none"]["tokens"]
    said = (
        f"{_points(few['against_none'])} with {share:.1f} %, undecided: with all tokens half of the answers "
        f"are right, so motion is not learnt{_hard_clips()}"
    )
    return said, "", ""


def _hard_clips() -> str:
    """The same of the model that learned motion, where that was measured."""
    if not (RESULTS / "hard.json").exists():
        return ""
    none, *others = _result("hard")["clips"]["methods"]
    rows = [row for row in others if row["method"].startswith("prumerge@")]
    gaps = ", ".join(
        f"{_points(row['against_none'])} with {100 * row['tokens'] / none['tokens']:.1f} %" for row in rows
    )
    return f"; `tiny:hard`, {none['right']:.0f} % right with all: {gaps}"


def _adapted() -> tuple[str, str, str]:
    """LoRA with labels, on a reader that only ever saw all tokens, against that reader as it was."""
    if not (RESULTS / "adaptation.json").exists():
        return "not measured yet (`benchmarks/adaptation.py`)", "not measured yet", ""
    found = _result("adaptation")["counts"]
    drawn, easy = (
        "; ".join(
            f"{_judged(found[f'{data}prumerge@{count}']['labels'], 1)} at {count}" for count in (16, 36)
        )
        for data in ("", "easy-VQA ")
    )
    return drawn, easy, ""


def _judged(comparison: dict[str, float], sign: int) -> str:
    """A difference in the direction of the claim, and what its interval says."""
    low, high = sorted((sign * comparison["low"], sign * comparison["high"]))
    verdict = "holds" if low > 0 else "**against**" if high < 0 else "undecided"
    return f"{verdict}, {sign * comparison['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def _points(comparison: dict[str, float]) -> str:
    return f"{comparison['difference']:+.1f} [{comparison['low']:+.1f}, {comparison['high']:+.1f}]"


def _reading(kind: str, method: str) -> dict[str, Any]:
    wanted = {"layers": 6, "method": method, "count": 36, "how": "plain"}
    rows = _result("real_tower")["readings"][kind]
    return next(row for row in rows if wanted.items() <= row.items())


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found
