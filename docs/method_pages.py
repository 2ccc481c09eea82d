"""A page for each method, from what is written elsewhere: its docstring and options (methods.md), its formula
(formulas.md), what its official code returned (tests/golden/README.md) and benchmarks/results."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from prumerge.catalogue import FACTS, built_in, entry

ROOT = Path(__file__).parent.parent
YARDSTICK = "The yardstick: bit-identical to the untouched model, which the tests show on every family."
OWN = "No paper's method but this project's; it agrees with an independent loop in the tests."
DESCRIBED = (
    "Written from the description in its paper and checked against an independent loop in the tests; not "
    "compared with outputs of an official code."
)


def page(name: str) -> str:
    """The whole page of one method, in Markdown; sections without content are left out."""
    sections = {
        "Formula": section(ROOT / "docs" / "formulas.md", name),
        "Options": _options(name),
        "Use": _use(name),
        "Accuracy": _accuracy(name),
        "What choosing costs": _cost(name),
        "Fidelity": _fidelity(name),
        "Source and licence": _source(name),
    }
    parts = [f"# {name}", entry(name).description, _facts(name)]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def section(path: Path, title: str, level: str = "##") -> str:
    """The text below a heading of a document, up to the next of its level; empty where there is none."""
    found = re.search(rf"^{level} {re.escape(title)}\n(.*?)(?=^{level} |\Z)", path.read_text(), re.M | re.S)
    return found[1].strip() if found else ""


def _facts(name: str) -> str:
    head, line = " | ".join(FACTS[1:]), "---|" * len(FACTS[1:])
    return f"| {head} |\n|{line}\n| {' | '.join(fact or 'no' for fact in entry(name).facts()[1:])} |"


def _options(name: str) -> str:
    """The table of methods.md."""
    block = section(ROOT / "docs" / "methods.md", name).partition("<!-- end -->")[0]
    return "\n".join(line for line in block.splitlines() if line.startswith("|"))


def _use(name: str) -> str:
    asked = (
        'answer clip.gif "what moves?"'
        if entry(name).video
        else 'answer --sample 2 "what does the sign say?"'
    )
    return (
        f"```console\n$ prumerge {asked} --reducer {name}\n```\n\n"
        f"In Python `prumerge.reduce(model, inputs, {name!r})`. `prumerge methods {name}` shows its options."
    )


def _accuracy(name: str) -> str:
    """What the embedded model answers right with it, at each budget that was asked."""
    asked = "video" if entry(name).video else "every_method"
    result, rows = _result(asked), _rows(asked)
    none = rows["none"]
    lines = [
        f"| {row['tokens']:.0f} | {row['accuracy']:.1f} | {_gap(row['against_none'])} |"
        for method, row in rows.items()
        if method.partition("@")[0] == name and row["against_none"]
    ]
    if not lines:
        return ""
    about = "of clips" if entry(name).video else "in each of six mini-benchmarks"
    return "\n".join(
        [
            f"| visual tokens read | % right | points against all {none['tokens']:.0f}, 95 % |",
            "|---:|---:|---|",
            *lines,
            "",
            f"The embedded model, {result['questions']} questions {about}, {result['date']}; with all "
            f"tokens {none['accuracy']:.1f} % right. One small model on drawn scenes: "
            "[what that shows, and what not](../results.md#the-instrument). "
            "All methods side by side: [results](../results.md#every-method).",
        ]
    )


def _cost(name: str) -> str:
    result = _result("methods")
    one = result["methods"].get(name)
    if one is None:
        return ""
    projects = ", after all patches went through the projector" if one["projects_all"] else ""
    threads = result["machine"]["threads"]
    return (
        f"{one['ms']:.2f} ms for {result['kept']} of {result['tokens'][0]} tokens on {threads} CPU threads, "
        f"{one['share_of_encode']:.2%} of encoding the picture{projects} ({result['date']})."
    )


def _fidelity(name: str) -> str:
    """Which outputs of official code it is compared with in the tests."""
    if rows := recorded(name):
        compared = "\n".join(f"- {row}" for row in rows)
        return (
            "Compared in the tests with recorded outputs of the official code, indices exactly, features "
            f"within 1e-4:\n\n{compared}"
        )
    if name == "none":
        return YARDSTICK
    return DESCRIBED if entry(name).paper else OWN


def _source(name: str) -> str:
    """Where it comes from; no code is copied, so only the licence of what was compared with is told."""
    one, code = entry(name), f"[the file](../../prumerge/reducers/{name}.py)"
    if not one.paper:
        return f"No paper: {code} is all of it. Apache-2.0."
    kind, _, number = one.paper.rpartition("/")
    cited = f"[arXiv {number}]({one.paper})" if "arxiv" in kind else f"<{one.paper}>"
    return f"{cited}. Here in {code}, Apache-2.0: written from the description, no code copied."


@cache
def _table_rows() -> tuple[tuple[str, str], ...]:
    """Keys and sources of tests/golden/README.md, from all of its tables."""
    rows = re.findall(
        r"^\| (`[^|]+?) \| ([^|]+?) \|", (ROOT / "tests" / "golden" / "README.md").read_text(), re.M
    )
    return tuple(rows)


def recorded(name: str) -> list[str]:
    """The official functions whose outputs a method is compared with, each with its licence."""
    longest_first = sorted(built_in(), key=len, reverse=True)

    def methods_of(keys: str) -> set[str]:
        words = re.findall(r"`([a-z_0-9]+)", keys)
        return {
            found
            for word in words
            if (found := next((each for each in longest_first if word.startswith(each)), ""))
        }

    return [source for keys, source in _table_rows() if name in methods_of(keys)]


def _rows(result: str) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in _result(result)["methods"]}


@cache
def _result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def _gap(comparison: dict[str, float]) -> str:
    return f"{comparison['difference']:+.1f} [{comparison['low']:+.1f}, {comparison['high']:+.1f}]"
