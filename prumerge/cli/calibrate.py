"""`prumerge calibrate`: when few visual tokens are enough, for a stated risk."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import (
    check_folder,
    check_target,
    need,
    note,
    print_json,
    print_table,
    progress,
    say,
    status,
    written,
)
from prumerge.errors import PrumergeError

if TYPE_CHECKING:
    from prumerge.evaluate.guard import Cost


def calibrate(
    data: Annotated[
        Path, typer.Option(help="A folder of pictures like those to come; no labels are needed.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The guard, a .json file.")] = Path(
        "guard.json"
    ),
    answers: Annotated[
        Path | None, typer.Option(help="Folder of answers, to go on from. [default: beside the guard]")
    ] = None,
    reducer: Annotated[str, typer.Option(help="The method of all steps.")] = "prumerge",
    cascade: Annotated[str, typer.Option(help="Budgets of the steps, before all tokens.")] = "16,36,144",
    agreement: Annotated[
        float, typer.Option(min=50, max=99.99, help="Percent of answers that must be the untouched model's.")
    ] = 99,
    confidence: Annotated[
        float, typer.Option(min=50, max=99.99, help="Percent: how sure that must be.")
    ] = 95,
    pictures: Annotated[str, typer.Option(help="How many of the folder's pictures, or all.")] = "all",
    questions: Annotated[
        Path | None,
        typer.Option(help="A text file with a question on each line, in place of those built in."),
    ] = None,
    model: shared.ModelOption = "tiny",
    positions: shared.PositionsOption = "auto",
    separators: shared.SeparatorsOption = "keep",
    size_bias: shared.SizeBiasOption = False,
    device: shared.DeviceOption = "auto",
    as_json: shared.JsonOption = False,
) -> None:
    """Find when few visual tokens are enough, without labels."""
    need("scipy", "evaluate")
    check_target(output, (".json",))
    folder = answers or output.with_suffix(".answers")
    check_folder(folder)
    with status("loading"):
        from prumerge.cli.model import open_model
        from prumerge.evaluate import guard as found_by
        from prumerge.evaluate.log import Log, file_of
        from prumerge.evaluate.plan import Plan
        from prumerge.evaluate.records import by_method
        from prumerge.evaluate.run import run
        from prumerge.evaluate.tasks import task
        from prumerge.generate.guarded import Guard
        from prumerge.loading.fingerprint import fingerprint

        chosen = {"pictures": pictures, **({"questions": str(questions)} if questions else {})}
        plan = Plan.read(reducer, cascade, "pictures", data=data, options=chosen)
        plan = replace(plan, methods=tuple(spec for spec in plan.methods if spec != "random"))
        if plan.adaptive or not plan.methods:
            raise PrumergeError("a cascade is a method at budgets such as 16,36,144; give them by --cascade")
        half = -(-len(plan.showings) // 2)
        least = found_by.pictures_needed(agreement / 100, confidence / 100)
        if half < least:
            raise PrumergeError(
                f"{agreement:g} % with {confidence:g} % confidence takes {least} pictures to find a "
                f"threshold and as many to test it, and there are {len(plan.showings)}; name a larger "
                "folder, or ask for less by --agreement"
            )
        options = shared.options_of(positions, separators, size_bias)
        loaded, processor = open_model(model, device)
    log = Log(file_of(folder, None), plan.settings(model, loaded, options), together=True)
    try:
        with progress("answering", made=lambda: len(log.records)) as track:
            run(loaded, processor, plan, log, track, options)
    except KeyboardInterrupt:
        note(f"stopped; {len(log.records)} answers are safe in {folder}, the same command goes on there")
        sys.exit(130)
    groups = by_method(log.records)
    labels = sorted(
        (label for label in groups if label != "none"), key=lambda label: groups[label][0].tokens_kept
    )
    first, second = found_by.halves(found_by.cases(groups, labels))
    threshold = found_by.threshold(first, agreement / 100, confidence / 100)
    if threshold is None:
        raise PrumergeError(
            f"{len(first)} questions do not show {agreement:g} % with {confidence:g} % confidence, even with "
            "all tokens; name a larger folder"
        )
    here, there = found_by.cost(first, threshold), found_by.cost(second, threshold)
    guard = Guard(
        steps=tuple(groups[label][0].spec for label in labels),
        threshold=threshold,
        max_new_tokens=task("pictures").max_new_tokens,
        options=options.changed(),
        calibrated={
            "model": model,
            "weights": fingerprint(loaded),
            "agreement": agreement,
            "confidence": confidence,
            "date": date.today().isoformat(),
            "untouched": here.answered[-1] / 100,
            "found_on": vars(here),
            "tested_on": vars(there),
        },
    )
    with written(output) as draft:
        guard.write(draft)
    if as_json:
        print_json({"guard": str(output), "threshold": threshold, **guard.calibrated})
    else:
        _report(output, labels, threshold, agreement, confidence, here, there)


def _report(
    output: Path,
    labels: list[str],
    threshold: float,
    agreement: float,
    confidence: float,
    here: Cost,
    there: Cost,
) -> None:
    """What was found, and what it gave on pictures that it was not found on."""
    rows: list[list[Any]] = [
        ["pictures", str(here.pictures), str(there.pictures)],
        ["questions", str(here.questions), str(there.questions)],
        ["same answer %", *map(_same, (here, there))],
        ["visual tokens read", f"{here.tokens:.1f}", f"{there.tokens:.1f}"],
        *(
            [f"% answered by {label}", f"{here.answered[place]:.1f}", f"{there.answered[place]:.1f}"]
            for place, label in enumerate([*labels, "the untouched model"])
        ),
    ]
    print_table(("", "found on", "tested on"), rows)
    if threshold > 1:
        say(
            f"No threshold was shown to keep {agreement:g} % of the answers: everything goes to the "
            "untouched model. Calibrate on more pictures, with larger budgets by --cascade, or ask for less "
            "by --agreement."
        )
    else:
        say(
            f"An answer of probability {threshold:.4f} or more stands: shown to keep {agreement:g} % of the "
            f"untouched model's answers with {confidence:g} % confidence, on pictures and questions like "
            "these."
        )
    read = 100 * there.tokens / there.untouched
    say(
        f"That reads {there.tokens:.1f} visual tokens a question on average, {read:.0f} % of the untouched "
        f"model's {there.untouched:.0f}. The guard is in {output}; use it by prumerge answer --guard "
        f"{output}."
    )


def _same(cost: Cost) -> str:
    return f"{cost.same:.2f} [{cost.same_low:.2f}, {cost.same_high:.2f}]"
