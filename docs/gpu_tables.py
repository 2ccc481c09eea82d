"""The tables of docs/gpu.md; `generate.py` calls these functions. Without a result they wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from results_of import of

SHOWN = ("encode", "decide", "prefill", "decode", "first token", "tokens/s", "peak MB")


def _of(part: str) -> Callable[[Callable[[Any], str]], Callable[[], str]]:
    """A table of one part of the run, or why there is none."""

    def decorate(table: Callable[[Any], str]) -> Callable[[], str]:
        @of("gpu")
        def written(told: Any) -> str:
            found = told.get(part)
            return "(this part did not run)" if not found or "error" in found else table(found)

        return written

    return decorate


@of("gpu")
def gpu_machine(told: Any) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    return f"{told['machine']['gpu']}, {told['date']}; {versions}."


@_of("agreement")
def gpu_agreement(found: Any) -> str:
    """By method: answers that are the CPU's, and the share of kept tokens that are."""
    lines = [
        "| method | answers, float32 | same tokens | answers, bfloat16 | same tokens |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, one in found.items():
        if "refused" in one:
            continue
        cells = []
        for kind in ("float32", "bfloat16"):
            kept = one.get(f"{kind}_kept")
            cells += [f"{one[f'{kind}_answers']} of {one['prompts']}", "" if kept is None else f"{kept:.1%}"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


@_of("stages")
def gpu_stages(found: Any) -> str:
    head = ["case", *(f"{name} {'' if '/' in name or 'MB' in name else 'ms'}".strip() for name in SHOWN)]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * len(SHOWN)]
    for case in found["cases"]:
        rows = case["rows"]
        cells = [_beside(rows[name]) if name in rows else "" for name in SHOWN]
        lines.append(f"| `{case['method']}`, batch {case['batch']} | {' | '.join(cells)} |")
    sentences = [f"- {word}" for word in found["words"] if word.startswith(("Batch", "Why"))]
    note = f"Measured (predicted) for this machine, {found['predicted_for']}."
    return "\n".join([*lines, "", note, "", *sentences])


def _beside(row: dict[str, Any]) -> str:
    predicted = f" ({_short(row['predicted'])})" if row["predicted"] else ""
    return _short(row["median"]) + predicted


@_of("graphs")
def gpu_graphs(found: Any) -> str:
    rows = []
    for one in found:
        whole = next(other for other in found if other["batch"] == one["batch"])
        times = [one["launched_ms"], one["graph_ms"], one["bound_ms"]]
        faster = [whole[kind] / one[kind] for kind in ("launched_ms", "graph_ms")]
        rows.append(
            [one["batch"], one["visual_tokens"], one["words"]]
            + [f"{each:.1f} ms" for each in times]
            + [f"{each:.2f}" for each in faster]
        )
    heads = "prompts, visual tokens, words, launched one by one, as one graph, least, times as fast: launched"
    return _table(f"{heads}, as a graph", rows)


@_of("answers")
def gpu_answers(found: Any) -> str:
    return _table(
        "cache, visual tokens, first token, each further token, the first answer",
        [
            [
                one["cache"],
                one["visual_tokens"],
                f"{one['first_token_ms']:.1f} ms",
                f"{one['each_ms']:.1f} ms",
                f"{one['once_ms'] / 1000:.1f} s",
            ]
            for one in found
        ],
        words=1,
    )


@_of("decisions")
def gpu_decisions(found: Any) -> str:
    return _table(
        "method, one picture ms, of 32 pictures ms, a picture of these ms, operators for one",
        [
            [
                f"`{name}`",
                _short(one["one_ms"]),
                _short(one["of_32_ms"]),
                _short(one["of_32_ms"] / 32),
                one["operators"],
            ]
            for name, one in sorted(found.items(), key=lambda item: item[1]["of_32_ms"])
        ],
        words=1,
    )


@_of("sizes")
def gpu_sizes(found: Any) -> str:
    ways = ("mask", "channels", "flex")
    return _table(
        "columns, plain ms, mask, more channels, FlexAttention",
        [
            [columns, f"{one['plain']:.3f}"]
            + [f"{one[f'{way}_over_plain']:.2f} x" if f"{way}_over_plain" in one else "" for way in ways]
            for columns, one in found.items()
        ],
    )


@_of("training")
def gpu_training(found: Any) -> str:
    return _table(
        "rows, visual tokens, words, ms a step, ratio, (k + W) / (576 + W), MiB above weights",
        [
            [
                one.get("batch", 1),
                one["visual_tokens"],
                one["words"],
                f"{one['ms']:.0f}",
                f"{one['ratio']:.2f}",
                f"{one['rule']:.2f}",
                f"{one['above_weights_mib']:,.0f}",
            ]
            for one in found
        ],
    )


@_of("four_bits")
def gpu_four_bits(found: Any) -> str:
    losses = found["losses"]
    few = max(1, len(losses) // 4)
    first, last = (sum(part) / len(part) for part in (losses[:few], losses[-few:]))
    return (
        f"{found['steps']} steps: the loss goes from {first:.3f} (mean of the first quarter) to {last:.3f} "
        "(of the last)."
    )


def _table(heads: str, rows: Iterable[Iterable[object]], words: int = 0) -> str:
    """A table with these heads, separated by commas; its first `words` columns are words, the others
    numbers."""
    names = heads.split(", ")
    marks = ["---"] * words + ["---:"] * (len(names) - words)
    lines = [names, *([str(cell) for cell in row] for row in rows)]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{'|'.join(marks)}|", *body])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


TABLES = {
    "gpu_machine": gpu_machine,
    "gpu_agreement": gpu_agreement,
    "gpu_stages": gpu_stages,
    "gpu_graphs": gpu_graphs,
    "gpu_answers": gpu_answers,
    "gpu_decisions": gpu_decisions,
    "gpu_sizes": gpu_sizes,
    "gpu_training": gpu_training,
    "gpu_four_bits": gpu_four_bits,
}
