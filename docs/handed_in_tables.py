"""What people measured on models and pictures of their own: `results/*.json`, as
`prumerge evaluate --task pictures` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "results"
SURE = 95


def handed_in() -> str:
    """A table for each report: a line for each method, a column for each budget."""
    reports = sorted(RESULTS.glob("*.json"))
    return "\n\n".join(_report(path.stem, json.loads(path.read_text())) for path in reports)


def _report(name: str, report: dict[str, Any]) -> str:
    lines = {line["method"]: line for line in report["methods"]}
    methods = list(dict.fromkeys(label.rpartition("@")[0] for label in lines))
    budgets = list(dict.fromkeys(label.rpartition("@")[2] for label in lines))
    rows = [
        f"| method | {' | '.join(f'{budget} tokens' for budget in budgets)} |",
        "|---|" + "---:|" * len(budgets),
    ]
    for method in methods:
        cells = [_cell(lines.get(f"{method}@{budget}")) for budget in budgets]
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return f"### {name}\n\n{_about(report)}\n\n" + "\n".join(rows)


def _cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    apart = "" if line["nats"] is None else f", {line['nats']:.2g} nats"
    return f"{line['same']:.1f} [{line['same_low']:.1f}, {line['same_high']:.1f}]{apart}"


def _about(report: dict[str, Any]) -> str:
    check, asked = report["check"], sum(report["questions"].values())
    exact = (
        "bit-identical to" if check["identical"] else f"**not** (logits differ by {check['difference']:.2g})"
    )
    note = f" {report['note']}" if "note" in report else ""
    machine, versions, outliers = report["machine"]["device"], report["versions"], check["outliers"]
    about = f"{report['model']} ({report['family']}, {report['dtype']}) on {machine}, {report['date']}"
    with_ = f"prumerge {versions['prumerge']}, Transformers {versions['transformers']}"
    return (
        f"{about}, {with_}: {asked} questions about {report['pictures']} pictures; `none` is {exact} the "
        f"untouched model; {outliers['mean']:.1f} % of the tokens are outliers "
        f"({outliers['low']:.1f}-{outliers['high']:.1f}).{note}"
    )
