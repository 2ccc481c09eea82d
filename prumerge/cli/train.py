"""`prumerge train`: adapt a model to few visual tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import (
    check_folder,
    clock,
    need,
    note,
    print_json,
    print_list,
    print_table,
    progress,
    say,
    status,
    written,
)
from prumerge.errors import PrumergeError

if TYPE_CHECKING:
    from prumerge.train.preview import Preview
    from prumerge.train.run import Outcome, Run, Track

QUICK = {"steps": 60, "batch": 8, "rank": 16, "alpha": 32, "rate": 1e-3, "projector_rate": 2e-4}
VISUAL = 36  # tokens that accuracy is counted at, with --quick
QUESTIONS = 48  # of each mini-benchmark, with --quick
Counts: TypeAlias = dict[str, tuple[int, int]]  # right answers, and questions


def train(
    context: shared.Context,
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Rows: json, jsonl, parquet or yaml, or a folder of pictures with --label-free.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that rows name their pictures in. [default: beside DATA]")
    ] = None,
    model: shared.ModelOption = "tiny",
    reducer: shared.ReducerOption = "prumerge_plus",
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")] = Path("training"),
    budgets: Annotated[
        str | None,
        typer.Option(help="Visual tokens of a step: 36, a list 36,144, or a range 16-144. [default: auto]"),
    ] = None,
    label_free: Annotated[
        bool, typer.Option("--label-free", help="Learn from the untouched model's answers, not from labels.")
    ] = False,
    distil: Annotated[
        float, typer.Option(help="Share of the divergence from the untouched model, beside labels.")
    ] = 0.0,
    train: Annotated[str, typer.Option(help="What is trained: lora, projector or full.")] = "lora",
    rank: Annotated[int, typer.Option(help="Of LoRA.")] = 128,
    alpha: Annotated[int, typer.Option(help="Of LoRA.")] = 256,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 2e-4,
    projector_rate: Annotated[float, typer.Option(help="Learning rate of the projector.")] = 2e-5,
    epochs: Annotated[float, typer.Option(help="Passes over the rows.")] = 1,
    steps: Annotated[int | None, typer.Option(help="In place of epochs.")] = None,
    batch: Annotated[int, typer.Option(help="Rows in a forward pass of one process.")] = 16,
    accumulate: Annotated[int, typer.Option(help="Forward passes in a step.")] = 1,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--fp32", help="Precision. [default: bf16 on a GPU]")
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations again in place of keeping them.")
    ] = False,
    held_out: Annotated[float, typer.Option(help="Rows to measure on: a share below 1, or how many.")] = 0,
    save_every: Annotated[int | None, typer.Option(help="Steps. [default: a tenth, at most 500]")] = None,
    workers: Annotated[int, typer.Option(help="Processes that open pictures.")] = 0,
    report: Annotated[
        str, typer.Option(help="Where to report as well: tensorboard, wandb, separated by commas.")
    ] = "",
    merge: Annotated[
        bool, typer.Option("--merge/--no-merge", help="Write a plain checkpoint beside the adapter.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of order, budgets and adapters.")] = 0,
    positions: shared.PositionsOption = "auto",
    separators: shared.SeparatorsOption = "keep",
    size_bias: shared.SizeBiasOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first batch, and what a step takes.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="The embedded model on drawn scenes, accuracy before and after.")
    ] = False,
    device: shared.DeviceOption = "auto",
    as_json: shared.JsonOption = False,
) -> None:
    """Adapt a model to few visual tokens, resumable."""
    need("accelerate", "train")
    if train == "lora":
        need("peft", "train")
    check_folder(folder)
    given = shared.given(context)
    if quick and data is not None:
        raise PrumergeError("--quick draws its own rows; leave DATA out")
    if not quick and data is None:
        raise PrumergeError("Missing argument 'DATA': a file of rows, or give --quick")
    numbers: dict[str, Any] = {
        "rank": rank, "alpha": alpha, "rate": rate, "projector_rate": projector_rate, "steps": steps,
        "batch": batch,
    }  # fmt: skip
    if quick:
        numbers |= {
            name: value for name, value in QUICK.items() if f"--{name.replace('_', '-')}" not in given
        }
        reducer = reducer if "--reducer" in given else "prumerge"
        budgets = budgets or "16-144"
    with status("loading"):
        import torch

        from prumerge.cli.model import open_model
        from prumerge.train.quick import drawn_rows
        from prumerge.train.recipe import Recipe
        from prumerge.train.rows import Rows
        from prumerge.train.run import Run, check, processes, this_process

        reports = [name for name in report.split(",") if name]
        check(reducer, budgets, reports)
        recipe = Recipe(
            train=train,
            epochs=epochs,
            accumulate=accumulate,
            bf16=torch.cuda.is_available() and device != "cpu" if bf16 is None else bf16,
            checkpointing=checkpointing,
            distil=distil,
            seed=seed,
            **numbers,
        )
        if data is None:
            rows = drawn_rows(recipe.batch * recipe.accumulate * (recipe.steps or 1), seed)
        else:
            rows = Rows.read(data, images, answers=not label_free)
        loaded, processor = open_model(model, "cpu" if processes() > 1 else device)
    before: Counts = {}
    after: Counts = {}
    with _phases() as track:
        run = Run(
            loaded,
            processor,
            rows,
            reducer,
            output=folder,
            budgets=budgets,
            options=shared.options_of(positions, separators, size_bias),
            label_free=label_free,
            held_out=held_out,
            recipe=recipe,
            save_every=save_every,
            workers=workers,
            report=reports,
            merge=merge,
            use_cpu=device == "cpu",
            name=model,
            track=track,
        )
        if dry_run:
            from prumerge.train.preview import preview

            shown = preview(run)
        elif quick:
            before, outcome, after = _quick(run, track)
        else:
            outcome = run.train()
    if this_process():
        return
    if dry_run:
        _print_preview(shown, as_json)
        return
    _draw(run, outcome)
    if not outcome.finished:
        note(f"stopped at step {outcome.steps} of {run.steps}; the same command goes on there")
        sys.exit(130)
    elif quick:
        _print_quick(run, before, after, as_json)
    else:
        _print_outcome(run, outcome, as_json)


def _quick(run: Run, track: Track) -> tuple[Counts, Outcome, Counts]:
    """Train, and count right answers before and after."""
    from prumerge.train.quick import accuracy

    def counted(what: str) -> Counts:
        def told(done: int, total: int) -> None:
            track(what, done, total)

        return accuracy(run.model, run.processor, run.reducer, VISUAL, QUESTIONS, told, run.options)

    before = counted("answering before")
    outcome = run.train()
    if not outcome.finished:
        return before, outcome, {}
    run.model = outcome.model
    return before, outcome, counted("answering after")


def _print_quick(run: Run, before: Counts, after: Counts, as_json: bool) -> None:
    if as_json:
        print_json({"before": before, "after": after, "steps": run.steps, "output": str(run.folder)})
        return
    rows = [[label, _share(*before[label]), _share(*after[label])] for label in before]
    print_table(["method", "right before, %", "after, %"], rows)
    say(f"{run.steps} steps on {len(run.trained_on)} rows with {run.reducer} at {run.budgets} tokens.")
    _say_where(run)


def _print_outcome(run: Run, outcome: Outcome, as_json: bool) -> None:
    measured = [entry for entry in outcome.log if any(name.startswith("eval_") for name in entry)]
    losses = [entry["loss"] for entry in outcome.log if "loss" in entry]
    if as_json:
        print_json({"output": str(run.folder), "steps": outcome.steps, "log": outcome.log})
        return
    if losses:
        say(f"loss {losses[0]:.4f} at first, {losses[-1]:.4f} at last, after {outcome.steps} steps")
    if measured:
        names = [name for name in measured[-1] if name.startswith("eval_")]
        rows = [
            [
                name.split("_")[1].replace("none", "all"),
                f"{measured[0][name]:.4f}",
                f"{measured[-1][name]:.4f}",
            ]
            for name in names
        ]
        print_table(["visual tokens", "held-out loss at first", "at last"], rows)
    _say_where(run)


def _share(right: int, asked: int) -> str:
    return f"{100 * right / asked:.1f} ({right} of {asked})"


def _draw(run: Run, outcome: Outcome) -> None:
    """The curve of losses, where matplotlib is there to draw it."""
    from importlib.util import find_spec

    if find_spec("matplotlib"):
        from prumerge.train.charts import curve

        with written(run.folder / "loss.png") as path:
            curve(outcome.log, path)


def _say_where(run: Run) -> None:
    kept = [part for part in ("adapter", "model", "loss.png") if (run.folder / part).exists()]
    say(f"written: {', '.join(str(run.folder / part) for part in kept)}")


def _print_preview(shown: Preview, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(shown))
        return
    print_table(
        ["row", "tokens", "trained text"], [[one.row, str(one.tokens), one.trained] for one in shown.first]
    )
    few = " to ".join(dict.fromkeys(map(str, shown.visual_after)))
    entries = [
        (f"{shown.rows} rows, {shown.held_out} held out", f"{shown.steps} steps"),
        ("visual tokens of the first batch", f"{shown.visual_before}, of which {few} are left"),
        ("trained parameters", f"{shown.trained_parameters:,} of {shown.parameters:,}"),
        ("a step here", f"{shown.seconds_a_step:.2f} s, so all of them {clock(shown.seconds)}"),
        (
            "memory",
            f"{shown.saved_mib:.0f} MiB kept for the backward pass, {shown.trained_mib:.0f} MiB of trained "
            "parameters with gradients and moments"
            + (f", {shown.peak_mib:.0f} MiB at most on the GPU" if shown.peak_mib else ""),
        ),
    ]
    print_list(entries)


@contextmanager
def _phases() -> Iterator[Track]:
    """A progress bar for each thing that is done, one after the other."""
    with ExitStack() as stack:
        now: dict[str, Any] = {"what": None, "at": 0, "made": 0}

        def track(what: str, done: int, total: int) -> None:
            if now["what"] != what:
                stack.close()
                now.update(what=what, at=0, made=0, first=done)
                now["bar"] = stack.enter_context(progress(what, made=lambda: now["made"]))
            now["made"] = done - now["first"]
            now["bar"](done - now["at"], total)
            now["at"] = done

        yield track
