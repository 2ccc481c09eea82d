"""The tables of docs/results.md about hard scenes and clips; `generate.py` calls `hard` and `hard_clips`."""

from __future__ import annotations

from typing import Any

from results_of import of

GOAL = 85


@of("hard")
def hard(result: Any) -> str:
    """Each method at each count, family by family, and which of them differ."""
    found, at = result["scenes"], result["at"]
    untouched = found["methods"][0]
    families = list(untouched["families"])
    lines = [
        f"{found['questions']} questions about {found['pictures']} scenes; {result['date']}.",
        "",
        f"| method | % right | against all tokens | {' | '.join(families)} |",
        "|---|---:|---|" + "---:|" * len(families),
    ]
    for row in sorted(found["methods"], key=lambda row: (-row["tokens"], -row["right"])):
        gap = "" if row is untouched else _points(row["against_none"])
        cells = " | ".join(f"{row['families'][family]:.0f}" for family in families)
        lines.append(f"| `{row['method']}` | {row['right']:.1f} | {gap} | {cells} |")
    pairs, apart = result["pairs"], result["any_two_differ"]
    of_random = [pair["first"] for pair in result["against_random"] if pair["p"] < 0.05]
    lines += [
        "",
        f"The untouched model answers {untouched['right']:.1f} %; the goal was {GOAL}. At {at} tokens "
        f"{len(pairs['differ'])} of {pairs['all']} pairs of methods differ, and {len(of_random)} methods "
        f"differ from `random`. Methods of which any two differ: "
        f"{', '.join(f'`{name}`' for name in apart)}, {len(apart)} where the goal was five.",
    ]
    return "\n".join(lines)


@of("hard")
def hard_clips(result: Any) -> str:
    """What clips keep of their answers with an eighth and a quarter of their tokens."""
    found = result["clips"]
    untouched = found["methods"][0]
    p = {pair["first"]: pair["p"] for pair in found["against_none"]}
    kinds = list(untouched["families"])
    lines = [
        f"{found['questions']} questions about {found['pictures']} clips; {result['date']}.",
        "",
        f"| method | tokens of a clip | % right | against all tokens | p | {' | '.join(kinds)} |",
        "|---|---:|---:|---|---:|" + "---:|" * len(kinds),
    ]
    for row in found["methods"]:
        cells = " | ".join(f"{row['families'][kind]:.0f}" for kind in kinds)
        against = (
            f"{_points(row['against_none'])} | {p[row['method']]:.2g}" if row is not untouched else " | "
        )
        lines.append(
            f"| `{row['method']}` | {row['tokens']:.0f} | {row['right']:.1f} | {against} | {cells} |"
        )
    return "\n".join(lines)


def _points(found: dict[str, Any]) -> str:
    return f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
