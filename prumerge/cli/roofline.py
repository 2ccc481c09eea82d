"""`prumerge roofline`: what fewer visual tokens gain on a model and a machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import CHARTS, check_target, need, print_json, print_table, say, status, written
from prumerge.errors import PrumergeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prumerge.roofline.configs import Model
    from prumerge.roofline.cost import Setting
    from prumerge.roofline.estimate import Estimate, Stage, Workload
    from prumerge.roofline.hardware import Machine
    from prumerge.roofline.precision import Precision
    from prumerge.roofline.training import Recipe, Step

_VIEWER = "llm-viewer-2024-03"
_OF_TRAINING = ("--rank", "--dropout", "--checkpointing")
_BESIDE_TRAINING = (
    *("--model", "--visual", "--text", "--hardware", "--bits", "--batch", "--tiles", "--attention"),
    *("--causal", "--whole-tower", "--calibrate", "--ops", "--checkpointing"),
)


def _models(incomplete: str) -> list[str]:
    from prumerge.roofline.configs import names

    return list(names())


def _machines(incomplete: str) -> list[str]:
    from prumerge.roofline.hardware import names

    before = incomplete[: incomplete.rfind(",") + 1]
    return [before + name for name in names()]


def _conventions(incomplete: str) -> list[str]:
    from prumerge.roofline.conventions import FORMULAS

    return list(FORMULAS)


def _kinds(incomplete: str) -> list[str]:
    from prumerge.roofline.training import KINDS

    return list(KINDS)


def roofline(
    context: shared.Context,
    model: Annotated[
        str,
        typer.Option(
            help="A preset such as qwen3-vl-8b, or the path of a config.json.", autocompletion=_models
        ),
    ] = "llava-1.5-7b",
    visual: Annotated[
        str,
        typer.Option(
            "--visual",
            "--keep",
            help="Visual tokens, separated by commas; for methods inside the model 576x2+288: "
            "in 2 layers, and in the rest.",
        ),
    ] = "576,144,40",
    text: Annotated[int, typer.Option(help="Tokens of text in the prompt.")] = 40,
    hardware: Annotated[
        str | None,
        typer.Option(
            help="Machines, separated by commas. [default: v100,h100; with --calibrate this machine alone]",
            autocompletion=_machines,
        ),
    ] = None,
    bits: Annotated[
        str, typer.Option(help="Bits of weights and activations: w16a16, w4a16, w8a8kv8, w8a8:fp8, ...")
    ] = "w16a16",
    new_tokens: Annotated[int, typer.Option(help="Tokens of the answer.")] = 64,
    batch: Annotated[int, typer.Option(help="Prompts at once.")] = 1,
    tensor_parallel: Annotated[
        int, typer.Option(help="Devices that share the language model; figures are of one.")
    ] = 1,
    tiles: Annotated[
        int | None,
        typer.Option(help="Pictures, or pieces of one, that the tower encodes. [default: the model's]"),
    ] = None,
    attention: Annotated[str, typer.Option(help="fused or eager.")] = "fused",
    causal: Annotated[str, typer.Option(help="full or half: are masked pairs computed.")] = "full",
    whole_tower: Annotated[
        bool, typer.Option("--whole-tower", help="Run the tower's last layers although nobody reads them.")
    ] = False,
    convention: Annotated[
        str,
        typer.Option(
            help="How to count: flops, macs, fastv, pyramiddrop, llm-viewer-2024-03.",
            autocompletion=_conventions,
        ),
    ] = "flops",
    train: Annotated[
        str | None,
        typer.Option(
            help="Predict a step of training in place of an answer, and say what is trained: "
            "lora, projector or full.",
            autocompletion=_kinds,
        ),
    ] = None,
    rank: Annotated[int, typer.Option(help="Rank of LoRA.")] = 128,
    dropout: Annotated[bool, typer.Option("--dropout", help="LoRA with dropout.")] = False,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Training with activation checkpointing.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine and put it beside the others.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the formulas with torch's counter instead; needs torch.")
    ] = False,
    ops: Annotated[
        bool, typer.Option("--ops", help="Show every operation as well: FLOPs, bytes, limit, time.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Draw the roofline there.")] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Predict what fewer tokens gain on a machine, or why not."""
    if verify:
        shared.only(context, (), "--verify")
        _verify(as_json)
        return
    from prumerge.roofline import configs, conventions
    from prumerge.roofline import hardware as machines
    from prumerge.roofline.cost import Setting
    from prumerge.roofline.estimate import estimate, schedule, workload
    from prumerge.roofline.precision import parse
    from prumerge.roofline.report import row, sentences

    recipe = _recipe(context, train, rank, dropout, checkpointing)
    conventions.check(convention)
    if convention == _VIEWER:
        allowed = ("--model", "--visual", "--text", "--hardware", "--bits")
        shared.only(context, allowed, f"--convention {convention}")
    if output is not None:
        check_target(output, CHARTS)
        need("matplotlib", "plot")
    chosen = configs.model(model)
    precisions = [parse(spec) for spec in dict.fromkeys(bits.split(","))]
    settings = [Setting(precision, batch, tensor_parallel, attention, causal) for precision in precisions]
    counts = [schedule(spec, chosen.language.layers) for spec in visual.split(",")]
    encoded = max(each[0] for each in counts)
    workloads = [workload(chosen, each, encoded, text, new_tokens, tiles, whole_tower) for each in counts]
    if convention == _VIEWER:
        cards = "v100" if hardware is None else hardware
        _llm_viewer(chosen, workloads, cards.split(","), precisions, as_json)
        return
    if hardware is None and not calibrate:
        hardware = "v100,h100"
    wanted = [] if hardware is None else hardware.split(",")
    devices = [machines.machine(name) for name in dict.fromkeys(wanted)]
    if calibrate:
        from prumerge.roofline.calibrate import calibrate as measure

        with status("measuring"):
            devices.append(measure())
    if recipe is not None:
        _train(chosen, workloads, devices, settings, recipe, ops, as_json)
        return
    groups = [
        [estimate(chosen, work, device, setting) for work in workloads]
        for device in devices
        for setting in settings
    ]
    estimates = [one for group in groups for one in group]
    if output is not None:
        from prumerge.roofline.picture import draw

        figure = draw(chosen, estimates)
        with written(output) as draft:
            figure.savefig(draft, dpi=150)
    rows = [row(one, group[0], chosen, convention) for group in groups for one in group]
    words = sentences(chosen, estimates)
    if as_json:
        print_json({"model": chosen.name, "estimates": rows, "words": words})
        return
    unit = "TFLOPs" if convention == "flops" else "TMACs"
    _print_estimates(estimates, rows, unit)
    for one in estimates if ops else ():
        _print_operations(one, (*one.stages, one.decode))
    if convention != "flops":
        say(f"{unit} by {convention}: {conventions.FORMULAS[convention]}.")
    say(*(f"here: {device.note}." for device in devices if device.name == "here"), *words)
    if output is not None:
        say(f"The picture is {output}.")


def _print_estimates(estimates: Sequence[Estimate], rows: Sequence[dict], unit: str) -> None:
    from prumerge.roofline.report import bound

    names = ("machine", "bits", "visual tokens", unit, "encode ms", "prefill ms", "first token ms", "gain")
    more = ("decode ms", "prefill bound by", "traffic GB", "KV GB", "peak GB")
    table = []
    for one, cells in zip(estimates, rows, strict=True):
        times = [cells[name] for name in ("encode_ms", "prefill_ms", "first_token_ms")]
        table.append(
            [
                cells["machine"],
                cells["bits"],
                cells["visual_tokens"],
                f"{cells['tera']:.3f}",
                *(f"{value:.2f}" for value in times),
                f"{cells['speedup']:.2f}x",
                f"{cells['decode_ms']:.2f}",
                bound(one.prefill),
                f"{cells['traffic_gb']:.2f}",
                f"{cells['kv_cache_gb']:.3f}",
                f"{cells['resident_gb']:.2f}",
            ]
        )
    print_table((*names, *more), table, keys=3)


def _llm_viewer(
    model: Model,
    workloads: list[Workload],
    cards: list[str],
    precisions: list[Precision],
    as_json: bool,
) -> None:
    """The table as LLM-Viewer would have it: language model only, one width for everything stored."""
    from prumerge.roofline.conventions import FORMULAS
    from prumerge.roofline.report import viewer_rows

    rows = viewer_rows(model, workloads, cards, precisions)
    note = FORMULAS[_VIEWER]
    if as_json:
        print_json({"model": model.name, "estimates": rows, "words": [note]})
        return
    names = ("machine", "bits", "visual tokens", "prompt tokens")
    table = []
    for row in rows:
        *labels, tera, time, memory, activation = row.values()
        figures = (f"{tera:.3f}", f"{time:.2f}", f"{memory:.2f}", f"{activation:.3f}")
        table.append([*map(str, labels), *figures])
    print_table((*names, "TFLOPs", "prefill ms", "memory GB", "activation GB"), table, keys=3)
    say(f"{note}.")


def _recipe(
    context: shared.Context, train: str | None, rank: int, dropout: bool, checkpointing: bool
) -> Recipe | None:
    """How to train; None where nothing is. Raises PrumergeError for options without effect."""
    if train is None:
        if idle := sorted(shared.given(context) & {*_OF_TRAINING}):
            raise PrumergeError(f"{', '.join(idle)}: without effect but beside --train; add --train lora")
        return None
    from prumerge.roofline.training import Recipe

    recipe = Recipe(train, rank, dropout, checkpointing)
    allowed = (*_BESIDE_TRAINING, *(_OF_TRAINING if train == "lora" else ()))
    shared.only(context, allowed, f"--train {train}")
    return recipe


def _train(
    model: Model,
    workloads: Sequence[Workload],
    machines: Sequence[Machine],
    settings: Sequence[Setting],
    recipe: Recipe,
    ops: bool,
    as_json: bool,
) -> None:
    """Print steps of training, those with all visual tokens first."""
    from prumerge.roofline.report import step_row, step_sentences
    from prumerge.roofline.training import training_step

    everything = workloads[0].with_visual(workloads[0].encoded)
    cases = list(dict.fromkeys([everything, *workloads]))
    groups = [
        [training_step(model, work, machine, setting, recipe) for work in cases]
        for machine in machines
        for setting in settings
    ]
    rows = [[step_row(one, group[0]) for one in group] for group in groups]
    words = step_sentences(model, groups)
    if as_json:
        print_json({"model": model.name, "steps": [row for each in rows for row in each], "words": words})
        return
    for group, cells in zip(groups, rows, strict=True):
        _print_steps(group, cells)
    for one in [one for group in groups for one in group] if ops else ():
        _print_operations(one, one.stages)
    say(*(f"here: {machine.note}." for machine in machines if machine.name == "here"), *words)


def _print_steps(steps: Sequence[Step], rows: Sequence[dict]) -> None:
    """One machine and precision, within 80 columns; each ratio is to all visual tokens."""
    from prumerge.roofline.report import bound

    names = ("visual", "TFLOPs", "ratio", "rule", "ms", "ratio", "bound by", "saved GB", "ratio", "GB")
    table = [
        [
            row["visual_tokens"],
            f"{row['tera']:.2f}",
            f"{row['flops_ratio']:.3f}",
            f"{row['rule']:.3f}",
            f"{row['ms']:.1f}",
            f"{row['time_ratio']:.3f}",
            bound(one.whole),
            f"{row['activations_gb']:.3f}",
            f"{row['activations_ratio']:.3f}",
            f"{row['memory_gb']:.1f}",
        ]
        for one, row in zip(steps, rows, strict=True)
    ]
    print_table(names, table, title=_title(steps[0]))


def _title(one: Estimate | Step) -> str:
    return f"{one.machine.name}, {one.setting.precision.name}"


def _print_operations(one: Estimate | Step, stages: Sequence[Stage]) -> None:
    """Every operation of one estimate; layers that are alike share their rows."""
    from prumerge.roofline.report import op_row

    names = ("stage", "operation", "times", "GFLOPs", "weights MB", "read MB", "written MB", "KV MB")
    more = ("FLOP/byte", "us", "bound by")
    table = []
    for stage in stages:
        for op in stage.ops:
            row = op_row(stage, op)
            cache = op.cache_read + op.cache_written
            sizes = (f"{size / 1e6:.2f}" for size in (op.weights, op.read, op.written, cache))
            cells = (f"{op.flops / 1e9:.3f}", *sizes, f"{op.intensity:.1f}", f"{row['us']:.2f}", row["bound"])
            table.append([stage.name, op.name, f"{op.count}", *cells])
    print_table((*names, *more), table, keys=2, title=f"{_title(one)}, {one.workload.label} visual tokens")


def _verify(as_json: bool) -> None:
    """Print formulas beside torch's counter; exit code 1 if they differ by one operation."""
    with status("counting"):
        from prumerge.roofline.verify import verify

        checks = verify()
    if as_json:
        print_json([{**vars(check), "equal": check.equal} for check in checks])
    else:
        table = [
            [
                check.model,
                check.what,
                f"{check.formula:,}",
                f"{check.counted:,}",
                "yes" if check.equal else "NO",
            ]
            for check in checks
        ]
        print_table(("model", "what", "formula FLOPs", "torch FLOPs", "equal"), table, keys=2)
    if not all(check.equal for check in checks):
        raise typer.Exit(1)
