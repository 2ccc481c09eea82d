"""`prumerge bench`: what few visual tokens gain here, measured, beside what the roofline predicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import (
    CHARTS,
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
from prumerge.errors import PrumergeError, short

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prumerge.bench.case import Case
    from prumerge.bench.run import Measured
    from prumerge.reducer import Reducer
    from prumerge.roofline.hardware import Machine


def bench(
    model: shared.ModelOption = "tiny",
    reducer: shared.ReducersOption = "prumerge,none",
    keep: Annotated[
        str, typer.Option(help="Visual tokens to keep, separated by commas: counts, or shares such as 25%.")
    ] = "36,144",
    batch: Annotated[str, typer.Option(help="Pictures at once, separated by commas.")] = "1,4",
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens of each answer.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which all take turns.")] = 7,
    picture: Annotated[
        Path | None, typer.Option(help="What is shown in place of the sample pictures.", show_default=False)
    ] = None,
    question: Annotated[str, typer.Option(help="What is asked.")] = "what is in the picture?",
    hardware: Annotated[
        str | None,
        typer.Option(help="A machine of `prumerge roofline` to predict for. [default: this one, measured]"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Measure although the machine is busy; the figures say so.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Draw the figures there.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the figures there, a .json file.")] = None,
    device: shared.DeviceOption = "auto",
    as_json: shared.JsonOption = False,
) -> None:
    """Measure what fewer tokens gain here, beside the roofline."""
    batches = _batches(batch)
    if output is not None:
        check_target(output, CHARTS)
        need("matplotlib", "plot")
    if save is not None:
        check_target(save, (".json",))
    with status("loading"):
        from prumerge.bench.record import record
        from prumerge.bench.report import as_dict, sentences
        from prumerge.bench.run import measure, runs
        from prumerge.roofline import hardware as machines
        from prumerge.roofline.calibrate import check_idle, load

        methods = _methods(reducer, keep)
        preset = None if hardware is None else machines.machine(hardware)
        if not force:
            with _or_by_force():
                check_idle()
        before = load()
        cases = _cases(model, device, methods, batches, picture, question, new_tokens)
    with status("measuring this machine"):
        machine = _machine(cases[0], preset, force)
    total, ran = runs(cases, rounds), 0

    def count(track: Callable[[int, int], None]) -> None:
        nonlocal ran
        ran += 1
        track(1, total)

    with progress("measuring", made=lambda: ran) as track:
        found = measure(cases, machine, rounds, lambda: count(track))
    words = sentences(found)
    if machine is not None and machine is not preset:
        words.append(f"Predicted for this machine, {machine.note}.")
    if force:
        words.append(f"Load of the last minute: {before:.1f} before, {load():.1f} after.")
    told = {
        "model": model,
        "question": question,
        "new_tokens": new_tokens,
        "rounds": rounds,
        "load": [before, load()],
        "predicted_for": machine and {"name": machine.name, "note": machine.note},
        "cases": [as_dict(one) for one in found],
        "words": words,
        **record(),
    }
    _write(found, told, output, save)
    if as_json:
        print_json(told)
        return
    _print(found)
    say(*words)
    if output is not None:
        say(f"The picture is {output}.")


def _batches(text: str) -> list[int]:
    """--batch as numbers."""
    found = []
    for part in (part.strip() for part in text.split(",")):
        if not part.isdecimal() or int(part) < 1:
            raise PrumergeError(
                f"{short(part)!r} is no batch size; write whole numbers of at least 1, as in 1,4"
            )
        found.append(int(part))
    return list(dict.fromkeys(found))


def _methods(reducer: str, keep: str) -> list[Reducer]:
    """Each method at each budget; those with a budget of their own, and `none`, as they are."""
    from prumerge.spec import make, split_specs, with_keep

    budgets = [part.strip() for part in keep.split(",")]
    found: dict[str, Reducer] = {}
    for spec in split_specs(reducer):
        own = make(spec)
        last = own.parts[-1]
        alone = str(last) == "none" or last.keep != type(last).keep
        for method in [own] if alone else [make(with_keep(spec, budget)) for budget in budgets]:
            found[str(method)] = method
    return list(found.values())


def _cases(
    name: str,
    device: str,
    methods: Sequence[Reducer],
    batches: Sequence[int],
    picture: Path | None,
    question: str,
    new_tokens: int,
) -> list[Case]:
    """Every method at every batch size, tried on one picture each."""
    import torch

    from prumerge.bench.case import Case
    from prumerge.cli.model import open_model
    from prumerge.loading.images import open_image
    from prumerge.loading.prompts import prepare_batch
    from prumerge.models import device_of
    from prumerge.pipeline.prompt import Prompt
    from prumerge.pipeline.reduce import Pipeline
    from prumerge.tiny import samples

    paths = [sample.path for sample in samples()] if picture is None else [picture]
    images = [open_image(path) for path in paths[: max(batches)]]
    model, processor = open_model(name, device)
    pipelines = [Pipeline(method) for method in methods]

    def asked(count: int) -> Any:
        shown = [[images[number % len(images)]] for number in range(count)]
        return prepare_batch(processor, shown, [question] * count).to(device_of(model))

    with torch.inference_mode():
        for pipeline in pipelines:  # what is wrong with a method or its budget shows before anything is timed
            pipeline.reduce(Prompt.read(model, asked(1)))
    prompts = {count: asked(count) for count in batches}
    return [Case(model, each, prompts[count], new_tokens) for count in batches for each in pipelines]


def _machine(case: Case, preset: Machine | None, force: bool) -> Machine | None:
    """What to predict for; None, with a note, for a model that the roofline does not know."""
    from prumerge.bench.machine import measured
    from prumerge.bench.prediction import check_known
    from prumerge.models import device_of

    try:
        check_known(case.model)
    except PrumergeError as error:
        if preset is not None:
            raise
        note(f"nothing is predicted: {error}")
        return None
    if preset is not None:
        return preset
    with _or_by_force():
        return measured(device_of(case.model), case.model.dtype, strict=not force)


@contextmanager
def _or_by_force() -> Iterator[None]:
    """What refuses a machine that is not quiet also says how it is measured all the same."""
    try:
        yield
    except PrumergeError as error:
        raise PrumergeError(f"{error}, or measure all the same by --force") from None


def _write(found: Sequence[Measured], told: dict[str, Any], output: Path | None, save: Path | None) -> None:
    """The picture and the file, each whole or not at all."""
    if output is not None:
        from prumerge.bench.picture import draw

        made = told["machine"]
        where = made["gpu"] or f"{made['processor']}, threads: {made['threads']}"
        figure = draw(found, f"{told['model']} on {where}, {told['date']}")
        with written(output) as draft:
            figure.savefig(draft, dpi=150)
    if save is not None:
        with written(save) as draft:
            draft.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _print(found: Sequence[Measured]) -> None:
    """A table for each case."""
    from prumerge.bench.report import COLUMNS, cells, title

    for one in found:
        print_table(COLUMNS, [cells(row) for row in one.rows], title=title(one))
