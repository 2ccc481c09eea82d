"""The decision table of choosing.md, with what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def choosing() -> str:
    """Cases, what to take, and the evidence of the embedded model."""
    pictures, budgets, clips = (_rows(name) for name in ("every_method", "accuracy", "video"))
    selection = json.loads((RESULTS / "methods.json").read_text())["methods"]

    def right(name: str) -> str:
        return f"{pictures[name]['accuracy']:.1f}"

    def read(name: str) -> str:
        return f"{pictures[name]['tokens']:.0f}"

    def both(name: str) -> str:
        return f"{right(f'{name}@36')} % right at 36 tokens, {right(f'{name}@144')} at 144"

    adaptive, alone = budgets["prumerge@auto"], budgets["topk@auto"]
    moving = ", ".join(
        f"`{name}` {clips[f'{name}@144']['accuracy']:.0f} %" for name in ("evs", "vidcom2", "random")
    )
    cases = {
        "pictures, a number of tokens that you choose": (
            "`scope`",
            f"{both('scope')} (all 576: {right('none')}); at 36 `vispruner` {right('vispruner@36')}, "
            f"`holov` {right('holov@36')}, `prumerge` {right('prumerge@36')}",
        ),
        "as many tokens as the picture needs": (
            "`prumerge`, or `topk` without merging",
            f"{adaptive['accuracy']:.1f} % right with {adaptive['tokens']:.0f} on average, from "
            f"{adaptive['tokens_low']:.0f} to {adaptive['tokens_high']:.0f}; "
            f"`topk` {alone['accuracy']:.1f} with {alone['tokens']:.0f}",
        ),
        "no attention that means anything (SigLIP, resamplers)": (
            "`divprune`",
            f"{both('divprune')}; it reads embeddings alone",
        ),
        "milliseconds count": (
            "`topk`, `holov`, `visionzip`",
            ", ".join(f"{selection[name]['ms']:.1f} ms" for name in ("topk", "holov", "visionzip"))
            + f" (`scope` {selection['scope']['ms']:.1f} ms)",
        ),
        "the question should decide": (
            "`cdpruner` with `relevance`",
            f"without CLIP's text tower do not: {right('cdpruner@36')} % at 36",
        ),
        "the vision tower is what takes long": (
            "`tome`",
            f"{right('tome@64')} % right at 64, {right('tome@36')} at 36",
        ),
        "prefill may start with all tokens": (
            "`fastv`, `pyramiddrop`",
            f"{right('fastv@36')} and {right('pyramiddrop@36')} %, but their layers read "
            f"{read('fastv@36')} and {read('pyramiddrop@36')} tokens on average",
        ),
        "videos": ("`vidcom2`, `evs`", f"a quarter of the tokens: {moving}: 72 questions part none of them"),
        "numbers of the PruMerge paper": (
            "`prumerge`, `prumerge_plus`",
            "the official code's arithmetic, recorded outputs met",
        ),
        "something to compare with": (
            "`pool`, `spatial`, `random`",
            f"`pool` {both('pool')}; `random` {both('random')}",
        ),
    }
    rows = [f"| {case} | {take} | {told} |" for case, (take, told) in cases.items()]
    return "\n".join(["| your case | take | measured |", "|---|---|---|", *rows])


def _rows(name: str) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in json.loads((RESULTS / f"{name}.json").read_text())["methods"]}
