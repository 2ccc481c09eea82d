"""Write the generated parts of the documents, from code and results: what stands between
`<!-- NAME -->` and `<!-- end -->`.

python docs/generate.py           # write
python docs/generate.py --check   # exit 1 if anything is stale
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from adaptation_table import adaptation
from bench_tables import bench_tiny
from choosing_table import choosing
from claims_table import claims
from gpu_tables import TABLES as OF_A_GPU
from handed_in_tables import handed_in
from hard_tables import hard, hard_clips
from lossless_table import lossless
from own_method_tables import own_method, own_method_told
from PIL import Image
from positions_tables import positions, positions_told
from prefix_tables import prefix_accuracy, prefix_cost
from real_llava_tables import real_llava, real_llava_learned
from real_tower_tables import real_tower_counts, real_tower_layers, real_tower_outliers
from reproduce_table import reproduce
from roofline_tables import (
    roofline_command,
    roofline_conventions,
    roofline_machines,
    roofline_models,
    roofline_scenario,
    roofline_table_2,
    roofline_training,
    roofline_training_measured,
    roofline_training_words,
)
from serving_tables import faults, vllm_rates
from typer.testing import CliRunner

from prumerge.catalogue import FACTS, all_families, built_in, entry
from prumerge.cli import app
from prumerge.evaluate.charts import pareto
from prumerge.evaluate.report import Row
from prumerge.evaluate.statistics import Comparison
from prumerge.evaluate.tasks import task

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "results" / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "methods",
            "results",
            "families",
            "roofline",
            "bench",
            "choosing",
            "serving",
            "gpu",
            "reproduce",
        )
    ),
]


def methods() -> str:
    rows = [f"| method | what it does | {' | '.join(FACTS[1:])} |", "|---|---|" + "---|" * len(FACTS[1:])]
    for one in (entry(name) for name in built_in()):
        name = f"[`{one.name}`]({one.paper})" if one.paper else f"`{one.name}`"
        rows.append(f"| {name} | {one.summary} | {' | '.join(one.facts()[1:])} |")
    return "\n".join(rows)


def options() -> str:
    """Every method with its options."""
    parts = []
    for one in (entry(name) for name in built_in()):
        rows = [
            f"## {one.name}",
            "",
            one.description,
            "",
            "| option | values | default | meaning |",
            "|---|---|---|---|",
        ]
        for option in one.options:
            values = option.type.replace("|", "\\|")
            rows.append(f"| `{option.name}` | {values} | {option.default} | {option.meaning} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def supported() -> str:
    """What `probe_families.py` found that each family can."""
    found = json.loads((ROOT / "docs" / "families.json").read_text())
    columns = next(iter(found.values()))
    rows = [f"| family | {' | '.join(columns)} |", "|---|" + ":-:|" * len(columns)]
    for name, can in found.items():
        rows.append(f"| `{name}` | {' | '.join('x' if can[each] else '' for each in columns)} |")
    return "\n".join(rows)


def family_facts() -> str:
    rows = ["| family | what it is | takes | attention | reduced |", "|---|---|---|---|---|"]
    for one in all_families():
        rows.append(f"| `{one.name}` | {one.summary} | {one.takes} | {one.attention} | {one.reduced} |")
    return "\n".join(rows)


def command_line() -> str:
    text = CliRunner().invoke(app, ["--help"], terminal_width=80, prog_name="prumerge").output.strip()
    return f"```text\n$ prumerge --help\n{text}\n```"


def accuracy() -> str:
    """The methods at 36 tokens on the mini-benchmarks."""
    result = _result("accuracy")
    shown = [row for row in result["methods"] if row["method"].endswith("@36") or "@" not in row["method"]]
    gaps = [pair for pair in result["rivals"] if pair["first"] == "prumerge@36"]
    note = (
        f"{result['questions']} held-out questions in each benchmark, {result['date']}; `blind` is the best "
        "answer that never looks. Differences in points of all questions, 95 % intervals (bootstrap over "
        "pictures), p by McNemar's exact test after Holm's correction. At 36 tokens:"
    )
    return "\n".join([_table(shown, "none", "against_none"), "", note, "", _gaps(gaps)])


def everything() -> str:
    """Every method at every budget, and who beats whom at equal tokens."""
    result = _result("accuracy")
    return "\n".join([_table(result["methods"], "none", "against_none"), "", _gaps(result["rivals"])])


def every_method() -> str:
    """All methods at three budgets: what is right, and the gap to all tokens; the best at 36 first."""
    result = _result("every_method")
    rows = {row["method"]: row for row in result["methods"]}
    budgets = list(dict.fromkeys(name.partition("@")[2] for name in rows if "@" in name))
    names = list(dict.fromkeys(name.partition("@")[0] for name in rows if "@" in name))
    names.sort(key=lambda name: -rows[f"{name}@{budgets[0]}"]["accuracy"])
    lines = [
        f"| method | {' | '.join(f'% right at {budget} | against none' for budget in budgets)} |",
        "|---|" + "---:|---|" * len(budgets),
    ]
    for name in names:
        cells = []
        for budget in budgets:
            row = rows[f"{name}@{budget}"]
            read = "" if round(row["tokens"]) == int(budget) else f" ({row['tokens']:.0f} read)"
            cells += [f"{row['accuracy']:.1f}{read}", _gap(row["against_none"])]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    none, blind = (rows[name]["accuracy"] for name in ("none", "blind"))
    head = (
        f"{result['questions']} questions in each of the six benchmarks, {result['date']}. "
        f"`none` (576 tokens): {none:.1f} % right; blind: {blind:.1f} %."
    )
    return "\n".join([head, "", *lines])


def embedded() -> str:
    """What the embedded model answers with all visual tokens."""
    result = _result("embedded")
    rows = ["| family | questions | % right with 576 tokens | blind | goal |", "|---|---:|---:|---:|---:|"]
    for name, family in result["families"].items():
        right, blind = 100 * family["model"], 100 * family["blind"]
        rows.append(f"| {name} | {family['n']} | {right:.1f} | {blind:.1f} | {family['goal']} |")
    speed = result["evaluate"]
    note = (
        f"`prumerge evaluate` asked {speed['per_second']:.0f} questions a second at 36 and 576 tokens, "
        f"start included, and took {speed['peak_gib']:.1f} GiB "
        f"({result['machine']['cores']} cores, {result['date']})."
    )
    return "\n".join([*rows, "", note])


def unseen() -> str:
    """A font and coloured shapes that training never showed."""
    return _sentence_and_table("unseen")


def video() -> str:
    """Clips of eight frames."""
    return _sentence_and_table("video")


def easy_vqa() -> str:
    """easy-VQA's test split: what is right, and what stays the untouched model's answer."""
    result = _result("easy_vqa")
    methods = sorted(result["methods"], key=lambda row: -row["accuracy"])
    lines = [
        "| method | % right | against none | same answer % | nats |",
        "|---|---:|---|---:|---:|",
    ]
    for row in methods:
        gap = _gap(row["against_none"]) if row["against_none"] else ""
        near = row["faithful"]
        same, nats = (f"{near['same']:.1f}", f"{near['nats']:.3f}") if near else ("", "")
        lines.append(f"| {row['method']} | {row['accuracy']:.1f} | {gap} | {same} | {nats} |")
    head = f"{methods[0]['questions']} questions, {result['date']}."
    return "\n".join([head, "", *lines, "", _gaps(result["rivals"])])


def _sentence_and_table(name: str) -> str:
    result = _result(name)
    head = f"{result['questions']} questions in each, {result['date']}."
    return "\n".join([head, "", _table(result["methods"], "none", "against_none")])


def tables() -> str:
    """The paper's tables on the embedded model, beside what the paper reports."""
    result = _result("paper_tables")
    parts = [f"{result['questions']} questions in each benchmark, {result['date']}."]
    for name, (title, published) in _PAPER.items():
        rows = result[name]
        first = "the first of its three" if name == "table_4" else rows[0]["method"]
        parts.append(f"## {title}\n\n{_table(rows, first, 'against')}\n\n{published}")
    return "\n\n".join(parts)


def _table(rows: list[dict[str, Any]], rival: str, key: str) -> str:
    """Methods as rows, benchmarks with what they mirror as columns."""
    names = list(rows[0]["scores"])
    head = [f"{name} ({task(name).mirrors.partition(',')[0]})" for name in names]
    lines = [
        f"| method | tokens | {' | '.join(head)} | % right | against {rival} |",
        "|---|" + "---:|" * (len(names) + 3),
    ]
    for row in rows:
        scores = " | ".join(f"{row['scores'][name]:.1f}" for name in names)
        tokens = f"{row['tokens']:.0f}"
        if row["tokens_low"] < row["tokens_high"]:
            tokens += f" ({row['tokens_low']:.0f} to {row['tokens_high']:.0f})"
        against = _gap(row[key]) if row[key] else ""
        lines.append(f"| {row['method']} | {tokens} | {scores} | {row['accuracy']:.1f} | {against} |")
    return "\n".join(lines)


def _gaps(pairs: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"- {pair['first']} - {pair['second']}: {_gap(pair['comparison'])} points, "
        f"p = {pair['comparison']['p']:.2g}"
        for pair in pairs
    )


def _gap(comparison: dict[str, float]) -> str:
    return f"{comparison['difference']:+.1f} [{comparison['low']:+.1f}, {comparison['high']:+.1f}]"


_PAPER = {
    "table_1": (
        "Table 1: by their own choice of tokens",
        "Paper, LLaVA-1.5-7B, fine-tuned with LoRA (VQAv2, SQA, TextVQA, POPE, MME, MMBench): "
        "untouched 78.5, "
        "66.8, 58.2, 85.9, 1510.7, 64.3; PruMerge (5.5 %) 72.0, 68.5, 56.0, 76.3, 1350.3, 60.9; PruMerge+ "
        "(25 %) 76.8, 68.3, 57.1, 84.0, 1462.4, 64.9.",
    ),
    "table_4": (
        "Table 4: against sampling at the same number of tokens",
        "Paper, training-free: TextVQA at 40 tokens PruMerge 54.00, spatial 5x8 46.85, sequential "
        "42.72; MME at "
        "40 1250.07, 1180.23, 703.60; POPE at 35 76.2, 69.8 (5x7), 11.7; ScienceQA at 16 68.07, 66.29 (4x4), "
        "64.20.",
    ),
    "table_5": (
        "Table 5: selection alone, and with merging",
        "Paper, 40 tokens (SQA, TextVQA, POPE, MME): selection alone 66.5, 54.8, 75.7, 1221.6; with merging "
        "68.5, 56.0, 76.3, 1350.3.",
    ),
    "ablation": ("Every option of PruMerge", "The first row has the official code's settings."),
}


def speed() -> str:
    reduction, encoder, startup, shape = (
        _result(name) for name in ("reduction", "encoder", "startup", "llava_7b_shape")
    )
    machine = (
        f"{reduction['machine']['processor']}, {reduction['machine']['threads']} threads, {reduction['date']}"
    )
    rows = [
        "| measured | result | against |",
        "|---|---|---|",
        f"| PruMerge, 576 x 1024 tokens, {reduction['kept']} kept | {reduction['prumerge_ms']:.2f} ms | "
        f"{reduction['prumerge_over_products']:.2f} x its three matrix products; "
        f"1/{reduction['pairs_over_prumerge']:.0f} of a loop over token pairs, "
        f"1/{reduction['rows_over_prumerge']:.0f} of a loop over kept tokens |",
        f"| CLIP ViT-L/14-336 + PruMerge + projector | {encoder['prumerge_ms']:.0f} ms | "
        f"{encoder['prumerge_over_untouched']:.3f} x the untouched `get_image_features` |",
        *(
            f"| Prefill, LLaVA-1.5-7B's shape with {shape['decoder_layers']} decoder layers, "
            f"{shape['stages'][method]['visual_tokens']} visual tokens | "
            f"{shape['stages'][method]['prefill_ms']:.0f} ms | {ratio:.3f} x the untouched model's 576 |"
            for method, ratio in shape["prefill_over_untouched"].items()
            if method not in ("untouched", "none")
        ),
        f"| `prumerge --help` | {startup['help_ms']:.0f} ms | `import torch` alone: "
        f"{startup['import_torch_ms']:.0f} ms |",
    ]
    return "\n".join([*rows, "", f"Medians of interleaved rounds on {machine}."])


def selection() -> str:
    """What choosing costs, beside encoding the picture."""
    result = _result("methods")
    machine, tokens = result["machine"], " x ".join(map(str, result["tokens"]))
    projector = (
        f"{result['projector_ms']:.0f} ms, {result['projector_ms'] / result['encode_ms']:.1%} of encoding"
    )
    rows = ["| method | ms | share of encoding | projects all first |", "|---|---:|---:|---|"]
    for name, one in result["methods"].items():
        projects = "yes" if one["projects_all"] else ""
        rows.append(f"| `{name}` | {one['ms']:.2f} | {one['share_of_encode']:.2%} | {projects} |")
    frames = ", ".join(f"`{name}` {ms:.0f} ms" for name, ms in result["video_ms"].items())
    text = f"""
{tokens} visual tokens, {result["kept"]} kept; medians of {result["rounds"]} interleaved rounds on
{machine["processor"]}, {machine["threads"]} threads, {result["date"]}. Encoding is CLIP ViT-L/14-336,
{result["encode_ms"]:.0f} ms. Methods that compare what the language model would read project all patches
first, as their official code does; that comes on top: {projector}.
The keys of another layer, for methods that take its attention, are {result["other_layer_ms"]:.0f} ms more.
DivPrune takes {result["direct_over_divprune"]:.1f} x as long when it recomputes its distances at every step.

A video of {result["video_tokens"]} tokens in 32 frames, a tenth kept: {frames}."""
    return "\n".join(rows) + "\n" + text


def medoids_cost() -> str:
    """What medoids take beside PruMerge, and why."""
    result = _result("medoids")
    own = result["in_parts"]
    times, product, int8 = own["ms"], own["product_numpy_ms"], own["product_int8_ms"]
    on_two = result["two_threads_ms"]
    lazily, at_once = own["all_lazily_ms"] - product, own["all_at_once_ms"] - own["product_torch_ms"]
    return (
        f"On one thread, {result['kept']} of 576 x 1024 tokens are {times['medoids']:.1f} ms of processor "
        f"time, {own['over_prumerge']['medoids']:.1f} x `prumerge`'s {times['prumerge']:.1f} ms; `scope` "
        f"takes {times['scope']:.1f} ms. The product of all keys with each other alone is {product:.1f} ms, "
        f"of which half is computed (all of it: {own['product_torch_ms']:.1f} ms), where PruMerge compares "
        f"only what it keeps with all others; it would be {own['product_bfloat16_ms']:.1f} ms in bfloat16, "
        f"and {int8:.1f} ms in int8, still {int8 / times['prumerge']:.1f} x all of `prumerge`: a method that "
        f"compares all pairs cannot be as cheap. The greedy choice is {lazily:.1f} ms lazily, and "
        f"{at_once:.1f} ms with every gain anew at each step. On two threads one picture takes "
        f"{on_two['medoids@36']:.1f} ms for 36 tokens and {on_two['medoids@144']:.1f} ms for 144 (`prumerge` "
        f"{on_two['prumerge@36']:.1f} and {on_two['prumerge@144']:.1f} ms). A clip of "
        f"{result['clip_tokens']} tokens in 32 frames, a tenth kept: "
        f"{result['clip_ms']['medoids'] / 1000:.1f} s ({result['date']})."
    )


def differences() -> str:
    """The options in which the paper's text and its official code differ."""
    rows = ["| option | meaning |", "|---|---|"]
    rows += [
        f"| `{option.name}` | {option.meaning} |"
        for option in entry("prumerge").options
        if "(code" in option.meaning or ", code)" in option.meaning
    ]
    return "\n".join(rows)


PICTURES = {"methods.png": "every_method"}
"""Charts of results in docs/images; each holds a hash of what it was drawn from."""

BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__: block
    for block in (
        bench_tiny,
        easy_vqa,
        handed_in,
        methods,
        options,
        supported,
        family_facts,
        command_line,
        accuracy,
        everything,
        every_method,
        embedded,
        unseen,
        video,
        tables,
        claims,
        adaptation,
        own_method,
        own_method_told,
        positions,
        positions_told,
        lossless,
        reproduce,
        hard,
        hard_clips,
        speed,
        selection,
        medoids_cost,
        prefix_accuracy,
        prefix_cost,
        differences,
        choosing,
        real_tower_outliers,
        real_tower_layers,
        real_tower_counts,
        real_llava_learned,
        real_llava,
        roofline_command,
        roofline_table_2,
        roofline_scenario,
        roofline_machines,
        roofline_models,
        roofline_conventions,
        roofline_training,
        roofline_training_words,
        roofline_training_measured,
        vllm_rates,
        faults,
    )
} | OF_A_GPU


def _result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def chart(path: Path, result: str, check: bool) -> bool:
    """Whether a picture of results is not of these; it is then drawn anew unless it is only checked."""
    source = sha256((ROOT / "benchmarks" / "results" / f"{result}.json").read_bytes()).hexdigest()
    if path.is_file():
        with Image.open(path) as picture:
            if picture.info.get("Source") == source:
                return False
    if not check:
        rows = [
            Row(**{**row, "against_none": row["against_none"] and Comparison(**row["against_none"])})
            for row in _result(result)["methods"]
        ]
        pareto(rows).savefig(path, dpi=150, metadata={"Software": None, "Source": source})
    return True


def fresh(text: str) -> str:
    """A document with every generated block written anew."""
    pattern = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)
    return pattern.sub(lambda found: f"<!-- {found[1]} -->\n{BLOCKS[found[1]]()}\n<!-- end -->", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, result in PICTURES.items():
        if chart(path := ROOT / "docs" / "images" / name, result, check):
            stale.append(str(path.relative_to(ROOT)))
    for document in DOCUMENTS:
        text = document.read_text()
        if (new := fresh(text)) != text:
            stale.append(str(document.relative_to(ROOT)))
            if not check:
                document.write_text(new)
    if stale:
        print("stale, run `make docs`:" if check else "written:", ", ".join(stale))
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
