"""The command line. Each command imports what it needs when it runs, so that help and tables come at once.

Results go to stdout, progress and errors to stderr; bad input is one sentence and exit code 2.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prumerge.errors import MissingPackage, PrumergeError

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    help="Prune and merge the visual tokens of vision-language models.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help starts three times faster
    pretty_exceptions_enable=False,
    add_completion=False,
)

ImageArgument = Annotated[Path, typer.Argument(help="A picture: JPEG, PNG, WebP, ...", show_default=False)]
ModelOption = Annotated[
    str, typer.Option(help="tiny (embedded, no download), a Hugging Face id, or a folder.")
]
ReducerOption = Annotated[
    str, typer.Option(help="A method with its options, such as prumerge:k=auto; see `prumerge methods`.")
]
KeepOption = Annotated[
    str | None,
    typer.Option(
        help="Visual tokens to keep: a count, or a share below 1. [default: the method's own choice]"
    ),
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes a GPU if there is one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def answer(
    image: Annotated[
        str,
        typer.Argument(
            help="A picture: JPEG, PNG, WebP, ...; with --video the question.", show_default=False
        ),
    ],
    question: Annotated[str | None, typer.Argument(help="What to ask about it.", show_default=False)] = None,
    video: Annotated[
        Path | None,
        typer.Option(help="In place of the picture a clip: a folder of pictures, a GIF, or a video file."),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames taken of a clip, evenly.")] = 8,
    model: ModelOption = "tiny",
    reducer: ReducerOption = "prumerge",
    keep: KeepOption = None,
    size_bias: Annotated[
        bool, typer.Option("--size-bias", help="Attend to merged tokens in proportion to their patches.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Ask the untouched model as well.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Ask a question about a picture or a clip, with few visual tokens."""
    if video is not None:
        if question is not None:
            raise PrumergeError("ask about a picture or about a clip: with --video leave the picture out")
        question = image
    if question is None:
        raise PrumergeError("Missing argument 'QUESTION': what to ask about the picture")
    with _status("loading"):
        from prumerge.generate.answer import answer as ask
        from prumerge.loading.clips import open_clip
        from prumerge.loading.images import open_image

        method = _method(reducer, keep)
        picture = open_image(image) if video is None else open_clip(video, frames)
        loaded, processor = _load(model, device)
    with _status("answering"):
        methods = [None, method] if compare else [method]
        if compare:  # the first call of each shape pays for memory and kernels
            for each in methods:
                ask(loaded, processor, picture, question, each, max_new_tokens=1, size_bias=size_bias)
        answers = [
            ask(
                loaded,
                processor,
                picture,
                question,
                each,
                max_new_tokens=max_new_tokens,
                size_bias=size_bias,
            )
            for each in methods
        ]
    if as_json:
        rows = [vars(one) for one in answers]
        _print_json(rows if compare else rows[0])
    elif compare:
        table = _table("", "answer", "visual tokens", "encode ms", "reduce ms", "prefill ms", "decode ms")
        for one in answers:
            times = (one.encode_ms, one.reduce_ms, one.prefill_ms, one.decode_ms)
            table.add_row(
                one.method, one.answer, f"{one.visual_tokens:g}", *(f"{time:.1f}" for time in times)
            )
        _print(table)
    else:
        print(answers[0].answer)


@app.command()
def show(
    image: ImageArgument,
    output: OutputOption = Path("kept.png"),
    model: ModelOption = "tiny",
    reducer: ReducerOption = "prumerge",
    keep: KeepOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Draw which visual tokens a method keeps, and which token absorbed which."""
    with _drawn(output) as draft:
        with _status("loading"):
            from prumerge.drawing import show as draw
            from prumerge.loading.images import open_image

            method, picture = _method(reducer, keep), open_image(image)
            loaded, processor = _load(model, device)
        tokens, reduction = _look(loaded, processor, picture, method)
        reduction = tokens.whole(reduction)
        draw(picture, tokens.picture_grid, reduction).save(draft)
    if as_json:
        report = {"method": str(method), "visual_tokens": tokens.patches, "kept": len(reduction)}
        _print_json({**report, "index": reduction.index.tolist(), "picture": str(output)})
    else:
        print(f"{len(reduction)} of {tokens.patches} visual tokens left; see {output}")


@app.command()
def plot_attention(
    image: ImageArgument,
    output: OutputOption = Path("attention.png"),
    model: ModelOption = "tiny",
    heads: Annotated[
        str, typer.Option(help="joint (as the official code) or split (the encoder's own).")
    ] = "joint",
    iqr: Annotated[
        float, typer.Option(min=0, help="Height of the fence above the third quartile, in IQRs.")
    ] = 1.5,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Plot the class attention of every visual token and the outlier fence (the paper's figure 3a)."""
    with _drawn(output) as draft:
        with _status("loading"):
            from prumerge import ops
            from prumerge.drawing import plot_attention as plot
            from prumerge.loading.images import open_image

            method, picture = _method(f"topk:heads={heads},iqr={iqr}", None), open_image(image)
            loaded, processor = _load(model, device)
        tokens, _ = _look(loaded, processor, picture, method)
        split_heads = heads == "split"
        plot(tokens, split_heads=split_heads, iqr=iqr).savefig(draft, dpi=150)
    scores = tokens.attention(split_heads=split_heads)
    if as_json:
        fence = float(ops.upper_fence(scores, iqr))
        _print_json({"attention": scores.tolist(), "fence": fence, "picture": str(output)})
    else:
        print(
            f"{int(ops.outliers(scores, iqr).sum())} of {len(tokens)} visual tokens are outliers; "
            f"see {output}"
        )


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show the options of this method.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the methods of token reduction, or explain one of them."""
    from dataclasses import asdict

    from prumerge.catalogue import FACTS, entries, entry, names

    if name is None:
        if as_json:
            _print_json([asdict(one) for one in entries()])
            return
        table = _table("method", "what it does", *FACTS)
        for one in entries():
            table.add_row(one.name, one.summary, *one.facts())
        _print(table)
        print("Options of one method: prumerge methods NAME")
        return
    if name not in names():
        raise PrumergeError(f"there is no method {name!r}; choose one of: {', '.join(names())}")
    one = entry(name)
    if as_json:
        _print_json(asdict(one))
        return
    facts = [f"{fact}: {said}" for fact, said in zip(FACTS, one.facts(), strict=True) if said]
    print(one.description, ", ".join(facts), *([one.paper] if one.paper else []), sep="\n\n", end="\n\n")
    table = _table("option", "values", "default", "meaning")
    for option in one.options:
        table.add_row(option.name, option.type, option.default, option.meaning)
    _print(table)


@app.command()
def families(as_json: JsonOption = False) -> None:
    """List the model families, whose attention scores their tokens, and where these are reduced."""
    from dataclasses import asdict

    from prumerge.supported import all_facts

    found = all_facts()
    if as_json:
        _print_json([asdict(one) for one in found])
        return
    table = _table("family", "what it is", "takes", "attention", "reduced")
    for one in found:
        table.add_row(one.name, one.summary, one.takes, one.attention, one.reduced)
    _print(table)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Where the pictures go.")] = Path("demo"),
    reducer: ReducerOption = "prumerge",
    keep: KeepOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer questions about sample pictures with all and with few visual tokens, and draw what was kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with _status("loading"):
        from prumerge.drawing import show as draw
        from prumerge.generate.answer import answer as ask
        from prumerge.loading.images import open_image
        from prumerge.tiny import samples

        method = _method(reducer, keep)
        model, processor = _load("tiny", "cpu")
    rows: list[dict[str, Any]] = []
    for sample in samples():
        picture = open_image(sample.path)
        with _status(f"looking at {sample.path.name}"):
            tokens, reduction = _look(model, processor, picture, method)
            target = folder / f"{sample.path.stem}.png"
            with _written(target) as draft:
                draw(picture, tokens.picture_grid, tokens.whole(reduction)).save(draft)
            for question in sample.questions:
                untouched, reduced = (
                    ask(model, processor, picture, question.text, each) for each in (None, method)
                )
                rows.append(
                    {
                        "picture": str(target),
                        "question": question.text,
                        "right": question.answer,
                        "untouched": vars(untouched),
                        "reduced": vars(reduced),
                    }
                )
    if as_json:
        _print_json(rows)
        return
    table = _table("picture", "question", "right answer", "with all 576", str(method), "tokens")
    for row in rows:
        answers = (row["untouched"]["answer"], row["reduced"]["answer"])
        tokens_left = f"{row['reduced']['visual_tokens']:g}"
        table.add_row(Path(row["picture"]).name, row["question"], row["right"], *answers, tokens_left)
    _print(table)
    print(f"What was kept and merged: {', '.join(dict.fromkeys(row['picture'] for row in rows))}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder of answers and reports.")] = Path(
        "evaluation"
    ),
    reducer: Annotated[
        str, typer.Option(help="Methods, separated by commas; none and random always take part.")
    ] = "prumerge,prumerge_plus,topk,spatial,pool,sequential",
    keep: Annotated[
        str | None,
        typer.Option(
            help="Budgets of visual tokens, separated by commas; auto: the method's own choice. "
            "[default: 36,144,auto]"
        ),
    ] = None,
    benchmark: Annotated[
        str, typer.Option(help="Benchmarks, separated by commas; all: the six of still pictures.")
    ] = "all",
    questions: Annotated[
        int | None, typer.Option(help="Questions in each benchmark, in groups of 24. [default: 504]")
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Pictures with a font and coloured shapes never trained on.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="48 questions each, at 36 tokens only.")] = False,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Accuracy against visual tokens on six mini-benchmarks; a run that was stopped goes on where it was."""
    _need("scipy", "evaluate")
    _need("matplotlib", "evaluate")
    if keep is None:
        keep = "36" if quick else "36,144,auto"
    if questions is None:
        questions = 48 if quick else 504
    with _status("loading"):
        from prumerge.evaluate.records import Log
        from prumerge.evaluate.run import Plan, run

        plan = Plan.read(reducer, keep, benchmark, questions, unseen)
        loaded, processor = _load(model, device)
    log = Log(folder / "answers.jsonl", plan.settings(model, loaded))
    if log.repaired:
        print("an unfinished last answer was cut off, it is asked again", file=sys.stderr)
    try:
        with _progress("answering") as track:
            run(loaded, processor, plan, log, track)
    except KeyboardInterrupt:
        print(
            f"stopped; {len(log.records)} answers are safe in {log.path}, the same command goes on there",
            file=sys.stderr,
        )
        sys.exit(130)
    _report(folder, log.records, as_json)


@app.command()
def rescore(
    folder: Annotated[Path, typer.Argument(help="A folder that `prumerge evaluate` wrote.")],
    as_json: JsonOption = False,
) -> None:
    """Score saved answers again and write the reports anew, without a model."""
    _need("scipy", "evaluate")
    _need("matplotlib", "evaluate")
    from prumerge.evaluate.records import read
    from prumerge.evaluate.report import rescored

    _, records = read(folder / "answers.jsonl")
    _report(folder, [rescored(record) for record in records], as_json)


@app.command()
def roofline(
    model: Annotated[
        str, typer.Option(help="A preset such as qwen3-vl-8b, or the path of a config.json.")
    ] = "llava-1.5-7b",
    visual: Annotated[
        str,
        typer.Option(
            help="Visual tokens, separated by commas; for methods inside the model 576x2+288: "
            "in 2 layers, and in the rest."
        ),
    ] = "576,144,40",
    text: Annotated[int, typer.Option(help="Tokens of text in the prompt.")] = 40,
    hardware: Annotated[
        str | None,
        typer.Option(
            help="Machines, separated by commas. [default: v100,h100; with --calibrate this machine alone]"
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
        str, typer.Option(help="How to count: flops, macs, fastv, pyramiddrop, llm-viewer-2024-03.")
    ] = "flops",
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
    as_json: JsonOption = False,
) -> None:
    """Predict what fewer visual tokens gain on a model and a machine, and why not more."""
    if verify:
        _verify(as_json)
        return
    from prumerge.roofline import configs, conventions
    from prumerge.roofline import hardware as machines
    from prumerge.roofline.cost import Setting
    from prumerge.roofline.estimate import estimate, schedule, workload
    from prumerge.roofline.precision import parse
    from prumerge.roofline.report import bound, row, sentences

    chosen = configs.model(model)
    conventions.check(convention)
    precisions = [parse(spec) for spec in dict.fromkeys(bits.split(","))]
    settings = [Setting(precision, batch, tensor_parallel, attention, causal) for precision in precisions]
    counts = [schedule(spec, chosen.language.layers) for spec in visual.split(",")]
    encoded = max(each[0] for each in counts)
    workloads = [workload(chosen, each, encoded, text, new_tokens, tiles, whole_tower) for each in counts]
    if convention == "llm-viewer-2024-03":
        _llm_viewer(chosen, workloads, (hardware or "v100").split(","), precisions, as_json)
        return
    if hardware is None:
        hardware = "" if calibrate else "v100,h100"
    devices = [machines.machine(name) for name in dict.fromkeys(hardware.split(","))] if hardware else []
    if calibrate:
        from prumerge.roofline.calibrate import calibrate as measure

        with _status("measuring"):
            devices.append(measure())
    groups = [
        [estimate(chosen, work, device, setting) for work in workloads]
        for device in devices
        for setting in settings
    ]
    estimates = [one for group in groups for one in group]
    if output is not None:
        _need("matplotlib", "plot")
        from prumerge.roofline.picture import draw

        with _drawn(output) as draft:
            draw(chosen, estimates).savefig(draft, dpi=150)
    rows = [row(one, group[0], chosen, convention) for group in groups for one in group]
    words = sentences(chosen, estimates)
    if as_json:
        _print_json({"model": chosen.name, "estimates": rows, "words": words})
        return
    unit = "TFLOPs" if convention == "flops" else "TMACs"
    columns = (
        "encode ms",
        "prefill ms",
        "first token ms",
        "gain",
        "decode ms",
        "traffic GB",
        "KV GB",
        "peak GB",
    )
    table = _table("machine", "bits", "visual tokens", unit, *columns, "prefill bound by")
    for one, cells in zip(estimates, rows, strict=True):
        times = [cells[name] for name in ("encode_ms", "prefill_ms", "first_token_ms")]
        table.add_row(
            cells["machine"],
            cells["bits"],
            cells["visual_tokens"],
            f"{cells['tera']:.3f}",
            *(f"{value:.2f}" for value in times),
            f"{cells['speedup']:.2f}x",
            f"{cells['decode_ms']:.2f}",
            f"{cells['traffic_gb']:.2f}",
            f"{cells['kv_cache_gb']:.3f}",
            f"{cells['resident_gb']:.2f}",
            bound(one),
        )
    _print(table)
    for one in estimates if ops else ():
        _operations(one)
    if convention != "flops":
        print(f"{unit} by {convention}: {conventions.FORMULAS[convention]}.")
    for device in devices:
        if device.name == "here":
            print(f"here: {device.note}.")
    print(*words, sep="\n")


def main() -> None:
    """Run a command; what a user can mend is one sentence and exit code 2, never a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("PRUMERGE_TRACEBACK"):
            raise
        print(f"prumerge: {error}", file=sys.stderr)
        sys.exit(2)


def _method(spec: str, keep: str | None) -> Any:
    """The reducer for --reducer and --keep."""
    from prumerge.spec import make

    if keep is None:
        return make(spec)
    before, plus, last = spec.rpartition("+")
    name, at, frames = last.partition("@")
    return make(f"{before}{plus}{name}{',' if ':' in name else ':'}keep={keep}{at}{frames}")


def _load(model: str, device: str) -> tuple[Any, Any]:
    import torch

    from prumerge.loading.load import load

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded, processor = load(model)
    try:
        return loaded.to(device), processor
    except (RuntimeError, AssertionError) as error:
        raise PrumergeError(
            f"there is no device {device!r} to run on: {str(error).splitlines()[0]}"
        ) from None


def _look(model: Any, processor: Any, image: Any, method: Any) -> tuple[Any, Any]:
    """The visual tokens of one picture, and the decision."""
    import torch

    from prumerge.loading.prompts import prepare
    from prumerge.pipeline.reduce import select

    with torch.inference_mode():
        return select(model, prepare(processor, image, "").to(model.device), method)[0]


@contextmanager
def _drawn(path: Path) -> Iterator[Path]:
    """`_written` for a picture."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise PrumergeError(f"{str(path)!r} must end in .png, .jpg or .webp")
    with _written(path) as draft:
        yield draft


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` only when all went well: nothing is ever half written."""
    if not path.parent.is_dir():
        raise PrumergeError(f"the folder {str(path.parent)!r} does not exist; make it first")
    handle, draft = tempfile.mkstemp(suffix=path.suffix, prefix=".prumerge-", dir=path.parent)
    os.close(handle)
    try:
        yield Path(draft)
        Path(draft).chmod(0o644)
        os.replace(draft, path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(f"{path} cannot be written ({error.strerror})") from error
    finally:
        Path(draft).unlink(missing_ok=True)


def _need(package: str, extra: str) -> None:
    """Say how to install what a command needs beyond the core, before any work is done."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingPackage(f"this needs {package}; install it with: pip install 'prumerge[{extra}]'")


def _table(*columns: str, title: str | None = None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for column in columns:
        table.add_column(
            column,
            justify="right"
            if column.endswith((" ms", "tokens", " GB", " MB", "FLOPs", "MACs", "/byte", "us"))
            else "left",
            overflow="fold",
        )
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    console = Console()
    # A pipe has no width: take what the table needs.
    (console if console.is_terminal else Console(width=200)).print(table)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _status(message: str) -> Any:
    """A spinner on stderr while something takes its time; nothing where nobody looks."""
    from rich.console import Console

    return Console(stderr=True).status(f"{message} ...")


@contextmanager
def _progress(message: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time that is left, on stderr; called with what was done and the total."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(message), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(message)
        yield lambda done, total: progress.update(task, advance=done, total=total)


def _report(folder: Path, records: list[Any], as_json: bool) -> None:
    """Write table.csv, summary.json and pareto.png, and print the table."""
    from dataclasses import asdict

    from prumerge.evaluate import report
    from prumerge.evaluate.records import by_method

    if not records:
        raise PrumergeError(f"there are no answers in {str(folder)!r} yet")
    groups = by_method(records)
    rows, pairs = report.summarise(groups), report.rivals(groups)
    summary = {"methods": [asdict(row) for row in rows], "rivals": [asdict(pair) for pair in pairs]}
    files = {"table.csv": report.as_csv(rows), "summary.json": json.dumps(summary, indent=2) + "\n"}
    for name, text in files.items():
        with _written(folder / name) as draft:
            draft.write_text(text, encoding="utf-8")
    with _written(folder / "pareto.png") as draft:
        report.pareto(rows).savefig(draft, dpi=150)
    if as_json:
        _print_json(summary)
        return
    names = report.columns(rows)
    table = _table("method", "tokens", *names, "% right", "against none", "p", "flips %")
    for row in rows:
        gap = row.against_none
        spread = f" ({row.tokens_low:.0f}-{row.tokens_high:.0f})" if row.tokens_low < row.tokens_high else ""
        cells = [f"{row.scores[name]:.1f}" if name in row.scores else "" for name in names]
        cells.append(f"{row.accuracy:.1f}")
        if gap:
            interval = f"{gap.difference:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"
            cells += [interval, f"{gap.p:.2g}", f"{gap.flips:.1f}"]
        table.add_row(row.method, f"{row.tokens:.0f}{spread}", *cells)
    _print(table)
    for pair in pairs:
        print(pair.sentence())
    if len(report.complete(rows)) < len(rows):
        asked = ", ".join(f"{row.method} {row.questions}" for row in rows)
        print(f"Not all were asked the same questions ({asked}): only differences compare like with like.")
    print(f"answers, table.csv, summary.json and pareto.png are in {folder}")


def _llm_viewer(
    model: Any, workloads: list[Any], cards: list[str], precisions: list[Any], as_json: bool
) -> None:
    """The table as LLM-Viewer would have it: language model only, one width for everything stored."""
    from prumerge.roofline.conventions import FORMULAS
    from prumerge.roofline.report import viewer_rows

    rows = viewer_rows(model, workloads, cards, precisions)
    note = FORMULAS["llm-viewer-2024-03"]
    if as_json:
        _print_json({"model": model.name, "estimates": rows, "words": [note]})
        return
    table = _table(
        "machine",
        "bits",
        "visual tokens",
        "prompt tokens",
        "TFLOPs",
        "prefill ms",
        "memory GB",
        "activation GB",
    )
    for row in rows:
        *labels, tera, time, memory, activation = row.values()
        table.add_row(*map(str, labels), f"{tera:.3f}", f"{time:.2f}", f"{memory:.2f}", f"{activation:.3f}")
    _print(table)
    print(f"{note}.")


def _operations(one: Any) -> None:
    """Every operation of one estimate; layers that are alike share their rows."""
    from prumerge.roofline.report import op_row

    title = f"{one.machine.name}, {one.setting.precision.name}, {one.workload.label} visual tokens"
    columns = ("GFLOPs", "weights MB", "read MB", "written MB", "KV MB", "FLOP/byte", "us", "bound by")
    table = _table("stage", "operation", "times", *columns, title=title)
    for stage in (*one.stages, one.decode):
        for op in stage.ops:
            row = op_row(stage, op)
            cache = op.cache_read + op.cache_written
            sizes = (f"{size / 1e6:.2f}" for size in (op.weights, op.read, op.written, cache))
            cells = (f"{op.flops / 1e9:.3f}", *sizes, f"{op.intensity:.1f}", f"{row['us']:.2f}", row["bound"])
            table.add_row(stage.name, op.name, f"{op.count}", *cells)
    _print(table)


def _verify(as_json: bool) -> None:
    """Print formulas beside torch's counter; exit code 1 if they differ by one operation."""
    with _status("counting"):
        from prumerge.roofline.verify import verify

        checks = verify()
    if as_json:
        _print_json([{**vars(check), "equal": check.equal} for check in checks])
    else:
        table = _table("model", "what", "formula FLOPs", "torch FLOPs", "equal")
        for check in checks:
            formula, counted = f"{check.formula:,}", f"{check.counted:,}"
            table.add_row(check.model, check.what, formula, counted, "yes" if check.equal else "NO")
        _print(table)
    if not all(check.equal for check in checks):
        raise typer.Exit(1)
