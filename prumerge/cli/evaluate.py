"""`prumerge evaluate`: accuracy against visual tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import check_folder, note, progress, status


def _benchmarks(incomplete: str) -> list[str]:
    from prumerge.evaluate.records import MEASURES

    return ["all", *MEASURES]


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
    benchmark: Annotated[
        str,
        typer.Option(
            help="Benchmarks, separated by commas; all: the six of still pictures.",
            autocompletion=_benchmarks,
        ),
    ] = "all",
    questions: Annotated[
        int | None, typer.Option(help="Questions in each benchmark, in groups of 24. [default: 504]")
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Pictures with a font and coloured shapes never trained on.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="48 questions each, at 36 tokens only.")] = False,
    model: shared.ModelOption = "tiny",
    positions: shared.PositionsOption = "compact",
    separators: shared.SeparatorsOption = "keep",
    size_bias: shared.SizeBiasOption = False,
    relevance_model: shared.RelevanceOption = None,
    chart: shared.ChartOption = "png",
    device: shared.DeviceOption = "auto",
    as_json: shared.JsonOption = False,
) -> None:
    """Accuracy against tokens on mini-benchmarks, resumable."""
    from prumerge.cli.reports import check, report

    check(chart)
    check_folder(folder)
    if keep is None:
        keep = "36" if quick else "36,144,auto"
    if questions is None:
        questions = 48 if quick else 504
    with status("loading"):
        from prumerge.cli.model import open_model
        from prumerge.evaluate.plan import Plan
        from prumerge.evaluate.records import Log
        from prumerge.evaluate.run import run
        from prumerge.spec import make

        plan = Plan.read(reducer, keep, benchmark, questions, unseen)
        options = shared.options_of(positions, separators, size_bias)
        loaded, processor = open_model(model, device)
        relevance = None
        if relevance_model is not None:
            relevance = shared.ClipRelevance(relevance_model, list(map(make, plan.methods)), loaded.device)
    settings = plan.settings(model, loaded, options)
    if relevance_model is not None:
        settings["relevance"] = relevance_model
    log = Log(folder / "answers.jsonl", settings)
    if log.repaired:
        note("an unfinished last answer was cut off, it is asked again")
    try:
        with progress("answering", made=lambda: len(log.records)) as track:
            run(loaded, processor, plan, log, track, options, relevance)
    except KeyboardInterrupt:
        note(f"stopped; {len(log.records)} answers are safe in {log.path}, the same command goes on there")
        sys.exit(130)
    report(folder, log.records, chart, as_json)
