"""What was measured of serving: vLLM's rates, and what the server bore."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def vllm_rates() -> str:
    """Requests per second at each number of visual tokens."""
    found = _result("vllm_rates")
    answers = found["rates"]
    rows = [
        f"| | {' | '.join(f'{answer}: requests per second | times' for answer in answers)} |",
        "|---|" + "---:|---:|" * len(answers),
    ]
    for budget in next(iter(answers.values())):
        cells = []
        for rates in answers.values():
            each = rates[budget]["requests_per_second"]
            cells += [f"{statistics.median(each):.1f} ({min(each):.1f} to {max(each):.1f})"]
            cells += [f"{rates[budget]['times_576']:.1f}"]
        rows.append(f"| {budget} | {' | '.join(cells)} |")
    shared = " on a machine that had other work, so only ratios count" if found["machine_was_shared"] else ""
    head = (
        f"What fewer tokens gain in vLLM {found['vllm']}: {found['model']}, {found['at_once']} requests at "
        f"once, two CPU cores{shared} (`benchmarks/vllm_rates.py`, {found['date']}; medians of rounds that "
        "take turns, and their range):"
    )
    return "\n".join([head, "", *rows])


def faults() -> str:
    """Engines that were killed, requests that were none, clients that left, and minutes under full load."""
    found = _result("faults")
    lines = []
    kills = found["kills"]
    for part, runs in kills["killed"].items():
        lost = sum(run.get("lost before a token", 0) for run in runs)
        begun = sum(run.get("lost after a token", 0) for run in runs)
        wrong = sum(run.get("wrong", 0) for run in runs)
        lines.append(
            f"- `kill -9` of one of two engines' {part} behind `vllm-router`, {len(runs)} times under "
            f"{kills['requests_each']} requests: {lost} lost before their first token, {begun} after it, "
            f"{wrong} answered wrongly, of {len(runs) * kills['requests_each']}."
        )
    bad = found["malformed"]
    memory, kinds = bad["memory_mib"], ", ".join(one.replace("_", " ") for one in bad["refused"])
    lines.append(
        f"- {bad['requests']:,} malformed requests ({kinds}): {bad['otherwise']} answered by anything but a "
        f"4xx in OpenAI's form; memory {memory['before']} MiB before, "
        f"{memory['after_each_quarter'][-1]} after."
    )
    left = found["leaving"]
    lines.append(
        f"- {left['clients']} clients that left half-way: after {left['seconds_until_nothing_is_left']} s "
        "nothing was left of them, here and in vLLM."
    )
    for name in (name for name in found if name.startswith("soak")):
        lines.append(_soak(name, found[name]))
    return "\n".join(["`benchmarks/faults.py`, on two CPU cores that had other work:", "", *lines])


def _soak(name: str, soak: dict[str, Any]) -> str:
    """Minutes under full load."""
    ends = ", ".join(
        f"{part} {values[len(values) // 3]} MiB after a third, {values[-1]} at the end"
        for part, values in soak["memory_mib"].items()
    )
    errors = sum(soak["errors"].values())
    note = f" ({soak['note']})" if "note" in soak else ""
    return (
        f"- {soak['seconds'] / 60:.0f} minutes{name.removeprefix('soak')}, {soak['at_once']} clients without "
        f"a pause, three in four pictures new: {soak['answered']:,} answers, {errors} errors{note}; {ends}."
    )


def _result(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())
