"""What methods.md says of Linformer and Reformer without training, as it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def prefix_accuracy() -> str:
    """What the embedded model answers, at as many rows."""
    result = _result()
    found = result["accuracy"]
    right = found["right"]
    names = [name for name in right if name != "none"]
    kept = list(dict.fromkeys(name.rpartition("=")[2] for name in names))
    lines = [_row("method", *(f"% right at {keep}" for keep in kept)), "|---|" + "---:|" * len(kept)]
    for method in dict.fromkeys(name.rpartition("keep=")[0] for name in names):
        values = (f"{right[f'{method}keep={keep}']:.1f}" for keep in kept)
        lines.append(_row(f"`{method.rstrip(',:')}`", *values))
    gaps = [
        f"`{pair['first']}` over `{pair['second']}` {pair['difference']:+.1f} "
        f"[{pair['low']:+.1f}, {pair['high']:+.1f}]"
        for pair in found["rivals"]
    ]
    note = (
        f"{found['questions']} held-out questions, {result['date']}; `none` {right['none']:.1f} % right. "
        f"Paired differences in points, 95 % intervals: {'; '.join(gaps)}."
    )
    return "\n".join([*lines, "", note])


def prefix_cost() -> str:
    """What a prefill, a step and the cache cost beside reduction."""
    result = _result()
    costs = {size: one for size, one in result["cost"].items() if size != "rounds"}
    head = (f"{size} tokens: prefill | a step | cache" for size in costs)
    lines = [_row("method", *head), "|---|" + "---:|" * 3 * len(costs)]
    for spec in next(iter(costs.values()))["prefill_ms"]:
        cells = (
            f"{one['prefill_ms'][spec]:.0f} ms | {one['step_ms'][spec]:.1f} ms | "
            f"{one['cache_mib'][spec]:.1f} MiB"
            for one in costs.values()
        )
        lines.append(_row(f"`{spec}`", *cells))
    shares = "; ".join(
        f"behind {size} tokens {100 * one['attention_share']:.0f} % of the multiplications here, "
        f"{100 * one['attention_share_7b']:.1f} % in a 7B model"
        for size, one in costs.items()
    )
    clip = ", ".join(f"`{spec}` {ms / 1000:.1f} s" for spec, ms in result.get("clip_ms", {}).items())
    note = f"Processor time on one thread of the CPU, {result['date']}. Attention itself is {shares}." + (
        f" A clip of 16,384 tokens in 32 frames: {clip}." if clip else ""
    )
    return "\n".join([*lines, "", note])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _result() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / "prefix.json").read_text())
    return found
