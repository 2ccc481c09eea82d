"""The tables of docs/roofline.md; `generate.py` calls these functions."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

from typer.testing import CliRunner

from prumerge.cli import app
from prumerge.roofline import configs, conventions, hardware, paper
from prumerge.roofline.cost import Setting, prefill
from prumerge.roofline.estimate import Estimate, estimate, floor, knee, schedule, workload
from prumerge.roofline.precision import parse
from prumerge.roofline.training import KINDS, Recipe, Step, training_step

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
LLAVA = configs.model("llava-1.5-7b")
COMMAND = "roofline --visual 576,144,40 --text 40 --hardware v100,h100 --bits w16a16,w4a16"
TRAINING = "roofline --train lora --visual 576,144,36 --text 64 --batch 16 --hardware h100"


def roofline_command() -> str:
    """What the command prints; its picture is docs/images/roofline.png."""
    return _printed(COMMAND)


def roofline_training() -> str:
    """What the command prints of training."""
    return _printed(TRAINING)


def _printed(command: str) -> str:
    """A command with its table, and its sentences as a list."""
    text = CliRunner().invoke(app, command.split()).output
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    table = [line for line in lines if ": " not in line]
    words = [f"- {line}" for line in lines if ": " in line]
    return "\n".join(["```text", f"$ prumerge {command}", *table, "```", "", *words])


def roofline_table_2() -> str:
    """Published, reproduced, and as it is."""
    head = ["model", "bits", "quantity", "published", "reproduced: LLM-Viewer, 700 to 70 tokens"]
    head += ["LLM-Viewer at the stated 616 to 80", "as it is: 616 to 80, tower included"]
    rows = [f"| {' | '.join(head)} |", "|---|---|---|---|---|---|---|"]
    for name, bits in dict.fromkeys((name, bits) for name, bits, _ in paper.PUBLISHED):
        keys = [(name, bits, row) for row in ("original", "PruMerge")]
        published = [astuple(paper.PUBLISHED[key]) for key in keys]
        reproduced = [astuple(paper.reproduced(*key)) for key in keys]
        stated = [astuple(paper.reproduced(*key, tokens=paper.STATED)) for key in keys]
        honest = [paper.honest(*key) for key in keys]
        real = [_cells(one) for one in honest]
        width = {16: "FP16", 4: "INT4"}[bits]
        for column, quantity in enumerate(paper.COLUMNS):
            cells = [
                _pair(*(source[row][column] for row in (0, 1)))
                for source in (published, reproduced, stated, real)
            ]
            if not paper.reproducible(bits, column):
                cells[1] += " *"
            rows.append(f"| {name} | {width} | {quantity} | {' | '.join(cells)} |")
        for quantity, values in (
            ("KV cache GB", [one.kv_cache / 1e9 for one in honest]),
            ("resident peak GB", [one.resident / 1e9 for one in honest]),
        ):
            rows.append(f"| {name} | {width} | {quantity} | | | | {_pair(*values)} |")
    cells = paper.agreement()
    equal = sum(paper.printed(published) == paper.printed(value) for _, _, published, value in cells)
    note = (
        f"{equal} of {len(cells)} cells that the tool can print come out at the printed precision "
        f"(of {4 * len(paper.PUBLISHED)} in all; * are not its output, see below)."
    )
    return "\n".join([*rows, "", note])


def _cells(one: Estimate) -> tuple[float, float, float, float]:
    """TFLOPs, ms to the first token, GB of traffic, GB of activations stored, as the columns of the table."""
    stored = sum(op.written * op.count for stage in one.stages for op in stage.ops)
    return one.flops / 1e12, one.first_token * 1e3, one.traffic / 1e9, stored / 1e9


def _pair(before: float, after: float) -> str:
    return f"{_number(before)} to {_number(after)} ({before / after:.1f}x)"


def _number(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def _of(visual: int, machine: str = "v100", bits: str = "w16a16", **options: str) -> Estimate:
    asked = workload(LLAVA, schedule(str(visual), LLAVA.language.layers), 576, text=40)
    return estimate(LLAVA, asked, hardware.machine(machine), Setting(parse(bits), **options))


def roofline_scenario() -> str:
    """616 -> 80 tokens, worked through."""
    many, few = _of(576), _of(40)
    attention, model = (
        [
            sum(
                op.flops * op.count
                for op in prefill(LLAVA.language, one.workload.prompt, Setting())
                if op.name in names or not names
            )
            for one in (many, few)
        ]
        for names in (("attention",), ())
    )
    rows = [
        ("tokens of the prompt", "", [616, 80]),
        ("attention pairs of a layer, tokens squared", "", [616**2, 80**2]),
        ("pairs that a causal mask leaves", "", [616 * 617 // 2, 80 * 81 // 2]),
        ("attention", "GFLOP", [value / 1e9 for value in attention]),
        ("language model's prefill", "GFLOP", [value / 1e9 for value in model]),
        ("tower", "GFLOP", [one.tower.flops / 1e9 for one in (many, few)]),
        (
            "reduction and projector",
            "GFLOP",
            [(one.reduction.flops + one.connector.flops) / 1e9 for one in (many, few)],
        ),
        ("until the first token", "GFLOP", [one.flops / 1e9 for one in (many, few)]),
        ("memory traffic until the first token", "GB", [one.traffic / 1e9 for one in (many, few)]),
        ("KV cache after 64 tokens", "MB", [one.kv_cache / 1e6 for one in (many, few)]),
        ("resident peak", "GB", [one.resident / 1e9 for one in (many, few)]),
    ]
    for machine in ("v100", "a100", "h100", "l4"):
        pair = [_of(visual, machine) for visual in (576, 40)]
        rows += [
            (f"{machine}: prefill", "ms", [one.prefill.time * 1e3 for one in pair]),
            (f"{machine}: first token", "ms", [one.first_token * 1e3 for one in pair]),
            (f"{machine}: each further token", "ms", [one.decode.time * 1e3 for one in pair]),
            (f"{machine}: answer of 64 tokens", "ms", [one.answer * 1e3 for one in pair]),
        ]
    lines = ["| quantity | unit | 576 + 40 | 40 + 40 | ratio |", "|---|---|---:|---:|---:|"]
    for quantity, unit, (before, after) in rows:
        shown = [f"{value:,}" if isinstance(value, int) else _number(value) for value in (before, after)]
        ratio = f"{before / after:.2f}" if after else ""
        lines.append(f"| {quantity} | {unit} | {shown[0]} | {shown[1]} | {ratio} |")
    return "\n".join(lines)


def _step(visual: int, words: int, train: str) -> Step:
    asked = workload(LLAVA, schedule(str(visual), LLAVA.language.layers), 576, text=words)
    return training_step(LLAVA, asked, hardware.machine("h100"), Setting(batch=16), Recipe(train))


def roofline_training_words() -> str:
    """What is left of the FLOPs of a step, by how long the text is."""
    lines = [
        f"| visual tokens | words | rule of thumb | {' | '.join(f'`{kind}`' for kind in KINDS)} |",
        "|---:|---:|---:|" + "---:|" * len(KINDS),
    ]
    for visual in (144, 36):
        for words in (64, 200, 1000):
            pairs = [[_step(count, words, kind) for count in (visual, 576)] for kind in KINDS]
            cells = [f"{few.whole.flops / all_.whole.flops:.3f}" for few, all_ in pairs]
            lines.append(f"| {visual} | {words} | {pairs[0][0].rule:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def roofline_training_measured() -> str:
    """Steps that were run beside what is predicted of them."""
    result = json.loads((RESULTS / "training.json").read_text())
    head = ["visual tokens", "words", "CPU s", "ratio", "ratio of FLOPs", "rule of thumb"]
    head += ["saved MiB", "predicted", "ratio", "predicted"]
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for one in result["steps"]:
        cells = [
            f"{one['visual_tokens']}",
            f"{one['words']}",
            f"{one['cpu_seconds']:.2f}",
            *(f"{one[name]:.3f}" for name in ("cpu_ratio", "flops_ratio", "rule")),
            *(f"{one[name]:.1f}" for name in ("saved_mib", "predicted_saved_mib")),
            *(f"{one[name]:.3f}" for name in ("saved_ratio", "predicted_saved_ratio")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    machine = result["machine"]
    rounds = f"{result['rounds']} interleaved rounds on {machine['processor']}, one thread, {result['date']}"
    return "\n".join([*lines, "", f"Medians of {rounds}; seconds are those of the processor."])


def roofline_machines() -> str:
    """Every machine, and what 576 -> 40 visual tokens gain there."""
    head = ["machine", "", "GB/s", "TFLOP/s fp16", "ridge", "prefill", "first token"]
    head += ["memory-bound up to", "fewer stop helping below", "the same, w4a16"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * 8]
    for name in hardware.names():
        machine = hardware.machine(name)
        many, few = _of(576, name), _of(40, name)
        case = (LLAVA, many.workload, machine)
        cells = [
            f"`{name}`",
            f"[{machine.title}]({machine.source}); {machine.note}",
            f"{machine.bandwidth / 1e9:,.0f}",
            f"{machine.rate('fp16') / 1e12:.4g}",
            f"{machine.ridge('fp16'):.0f}",
            f"{many.prefill.time / few.prefill.time:.1f}x",
            f"{many.first_token / few.first_token:.1f}x",
            str(knee(*case, Setting())),
            str(floor(*case, Setting())),
            str(floor(*case, Setting(parse("w4a16")))),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def roofline_conventions() -> str:
    """The same 576 visual and 40 text tokens, counted in each way."""
    flops, visual = _of(576).flops, (576,) * LLAVA.language.layers
    lines = ["| convention | what it counts | 10^12 at 576 + 40 tokens |", "|---|---|---:|"]
    for name, formula in conventions.FORMULAS.items():
        if name.startswith("llm-viewer"):
            tera = conventions.llm_viewer(LLAVA.language, 616, conventions.card("v100"), 16).operations / 1e12
        else:
            tera = conventions.count(name, flops, LLAVA.language, visual) / 1e12
        lines.append(f"| `{name}` | {formula} | {tera:.3f} |")
    return "\n".join(lines)


def roofline_models() -> str:
    names = ", ".join(f"[`{name}`]({configs.presets()[name]['source']})" for name in configs.names())
    return f"Presets: {names}. Families whose `config.json` can be read: {', '.join(configs.FAMILIES)}."
