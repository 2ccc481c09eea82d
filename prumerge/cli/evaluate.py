"""`prumerge evaluate`: accuracy against visual tokens."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import check_folder, note, progress, status, written
from prumerge.errors import PrumergeError, short

if TYPE_CHECKING:
    from prumerge.evaluate.plan import Plan
    from prumerge.pipeline.options import Options


def _tasks(incomplete: str) -> list[str]:
    """Names of tasks that complete the last one of a list."""
    from prumerge.evaluate.tasks import names

    before = incomplete[: incomplete.rfind(",") + 1]
    return [before + name for name in ("all", *names())]


def evaluate(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder of answers and reports.")] = Path(
        "evaluation"
    ),
    reducer: Annotated[
        str,
        typer.Option(
            help="Methods, separated by commas; none and random always take part.",
            autocompletion=shared._methods,
        ),
    ] = "prumerge,prumerge_plus,topk,spatial,pool,sequential",
    keep: Annotated[
        str | None,
        typer.Option(
            help="Budgets of visual tokens, separated by commas: counts, shares such as 25%, or auto, the "
            "method's own choice. [default: 36,144,auto]"
        ),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            "--task",
            "--benchmark",
            help="Tasks, separated by commas, see `prumerge tasks`; all: the six about drawn scenes.",
            autocompletion=_tasks,
        ),
    ] = "all",
    data: Annotated[
        Path | None,
        typer.Option(help="A folder with a folder for each task by its name, or the only task's own."),
    ] = None,
    task_option: Annotated[
        list[str] | None,
        typer.Option(
            help="What a task lets choose, such as ocr=yes; any number of times.", metavar="NAME=VALUE"
        ),
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(
            help="Questions in each task at most, drawn ones in groups of 24. [default: all; 504 drawn]"
        ),
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Pictures with a font and coloured shapes never trained on.")
    ] = False,
    hard: Annotated[
        bool,
        typer.Option(
            "--hard", help="Hard scenes: --task hard --model tiny:hard, in a clone of the repository."
        ),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="48 questions each, at 36 tokens only.")] = False,
    model: shared.ModelOption = "tiny",
    positions: shared.PositionsOption = "auto",
    separators: shared.SeparatorsOption = "keep",
    size_bias: shared.SizeBiasOption = False,
    relevance_model: shared.RelevanceOption = None,
    judge: shared.JudgeOption = None,
    judge_model: shared.JudgeModelOption = None,
    judge_seed: shared.JudgeSeedOption = 0,
    chart: shared.ChartOption = "png",
    device: shared.DeviceOption = "auto",
    device_map: Annotated[
        str | None,
        typer.Option(help="How a model that one device cannot hold is spread: auto, balanced, sequential."),
    ] = None,
    agreement: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="Percent of answers that must stay the same, to name the cheapest method."
        ),
    ] = 95,
    as_json: shared.JsonOption = False,
) -> None:
    """Accuracy against tokens on tasks, or on your own pictures."""
    from prumerge.cli.reports import check, judge_of, judge_saved, report

    check(chart)
    check_folder(folder)
    if hard:
        tasks, model = _hard(tasks, model)
    if keep is None:
        keep = "36" if quick else "36,144,auto"
    if questions is None and quick:
        questions = 48
    with status("loading"):
        from prumerge.cli.model import open_model
        from prumerge.evaluate.log import Log, file_of
        from prumerge.evaluate.plan import Plan
        from prumerge.evaluate.processes import Processes
        from prumerge.evaluate.run import run
        from prumerge.evaluate.tasks import DRAWN
        from prumerge.spec import make

        chosen = _options(task_option or [])
        plan = Plan.read(reducer, keep, tasks, questions, unseen=unseen, data=data, options=chosen)
        options = shared.options_of(positions, separators, size_bias)
        if not set(plan.tasks) <= set(DRAWN):
            _ = plan.showings  # what is wrong with files is said before a model is loaded
        asked = judge_of(list(plan.tasks), judge, judge_model, judge_seed)
        loaded, processor = open_model(model, device, device_map)
        relevance = None
        if relevance_model is not None:
            relevance = shared.ClipRelevance(relevance_model, list(map(make, plan.methods)), loaded.device)
    settings = plan.settings(model, loaded, options)
    if relevance_model is not None:
        settings["relevance"] = relevance_model
    processes = Processes.of_environment()
    log = Log(file_of(folder, processes.file), settings, together=True)
    if log.repaired:
        note("an unfinished last answer was cut off, it is asked again")
    if "pictures" in plan.tasks and processes.rank == 0:
        with status("looking at the checkpoint"):
            _look(folder, loaded, processor, plan, options, model)
    bar = progress("answering", made=lambda: len(log.records))
    try:
        with bar if processes.rank == 0 else nullcontext(_unseen) as track:
            run(loaded, processor, plan, log, track, options, relevance, processes)
    except KeyboardInterrupt:
        note(f"stopped; {len(log.records)} answers are safe in {log.path}, the same command goes on there")
        sys.exit(130)
    processes.part()
    if processes.rank == 0:
        if asked is not None:
            judge_saved(folder, log.records, asked)
        report(folder, log.records, chart, as_json, agreement)


def _look(folder: Path, model: Any, processor: Any, plan: Plan, options: Options, name: str) -> None:
    """Write what a look at the checkpoint shows to self-check.json."""
    from dataclasses import asdict

    from prumerge.evaluate.selfcheck import PICTURES, described, self_check

    shown = [showing for showing in plan.showings if showing[1][0].task == "pictures"]
    images = [opens()[0] for opens, _ in shown[:PICTURES]]
    found = self_check(model, processor, images, shown[0][1][0].text, options)
    with written(folder / "self-check.json") as draft:
        about = {"model": name, **described(model), "check": asdict(found)}
        draft.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _hard(tasks: str, model: str) -> tuple[str, str]:
    """Tasks and model of hard scenes. Raises PrumergeError where other tasks are asked as well, or the model
    made for them is not there."""
    if tasks not in ("all", "hard"):
        raise PrumergeError(f"--hard asks the task hard alone; leave it out and take --task {tasks},hard")
    if model == "tiny":
        from prumerge.tiny import weights

        model = "tiny:hard"
        try:
            weights(model)
        except PrumergeError as error:
            raise PrumergeError(
                "the model for hard scenes, 'tiny:hard', is in a clone of the repository only; clone it, or "
                "ask the embedded one by --task hard --model tiny"
            ) from error
    return "hard", model


def _unseen(done: int, total: int) -> None:
    """The progress of a process beside the one that shows its own."""


def _options(given: list[str]) -> dict[str, str]:
    """NAME=VALUE as a mapping. Raises PrumergeError for anything else."""
    if wrong := [one for one in given if not one.partition("=")[0] or "=" not in one]:
        raise PrumergeError(f"a task's option is NAME=VALUE, such as ocr=yes, not {short(wrong[0])!r}")
    return {name: value for name, _, value in (one.partition("=") for one in given)}
