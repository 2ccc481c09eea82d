"""The command line. Each command imports what it needs when it runs, so that help and tables come at once.

Results go to stdout, progress and errors to stderr; bad input is one sentence and exit code 2.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    image: ImageArgument,
    question: Annotated[str, typer.Argument(help="What to ask about it.", show_default=False)],
    model: ModelOption = "tiny",
    reducer: ReducerOption = "prumerge",
    keep: KeepOption = None,
    compare: Annotated[bool, typer.Option("--compare", help="Ask the untouched model as well.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Ask a question about a picture, with few visual tokens."""
    with _status("loading"):
        from prumerge.answering import answer as ask
        from prumerge.loading import open_image

        method, picture = _method(reducer, keep), open_image(image)
        loaded, processor = _load(model, device)
    with _status("answering"):
        methods = [None, method] if compare else [method]
        if compare:  # the first call of each shape pays for memory and kernels
            for each in methods:
                ask(loaded, processor, picture, question, each, max_new_tokens=1)
        answers = [
            ask(loaded, processor, picture, question, each, max_new_tokens=max_new_tokens) for each in methods
        ]
    if as_json:
        rows = [vars(one) for one in answers]
        _print_json(rows if compare else rows[0])
    elif compare:
        table = _table("", "answer", "visual tokens", "encode ms", "reduce ms", "prefill ms", "decode ms")
        for one in answers:
            times = (one.encode_ms, one.reduce_ms, one.prefill_ms, one.decode_ms)
            table.add_row(one.method, one.answer, str(one.visual_tokens), *(f"{time:.1f}" for time in times))
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
    with _written(output) as draft:
        with _status("loading"):
            from prumerge.loading import open_image
            from prumerge.pictures import show as draw

            method, picture = _method(reducer, keep), open_image(image)
            loaded, processor = _load(model, device)
        tokens, reduction = _look(loaded, processor, picture, method)
        draw(picture, tokens.grid, reduction).save(draft)
    if as_json:
        report = {"method": str(method), "visual_tokens": len(tokens), "kept": len(reduction)}
        _print_json({**report, "index": reduction.index.tolist(), "picture": str(output)})
    else:
        print(f"{len(reduction)} of {len(tokens)} visual tokens left; see {output}")


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
    with _written(output) as draft:
        with _status("loading"):
            from prumerge import ops
            from prumerge.loading import open_image
            from prumerge.pictures import plot_attention as plot

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

    from prumerge.catalogue import entries, entry, names

    if name is None:
        if as_json:
            _print_json([asdict(one) for one in entries()])
            return
        table = _table("method", "what it does", "needs", "adaptive")
        for one in entries():
            table.add_row(one.name, one.summary, one.needs, "yes" if one.adaptive else "")
        _print(table)
        print("Options of one method: prumerge methods NAME")
        return
    if name not in names():
        raise ValueError(f"there is no method {name!r}; choose one of: {', '.join(names())}")
    one = entry(name)
    if as_json:
        _print_json(asdict(one))
        return
    print(one.description, *([one.paper] if one.paper else []), sep="\n\n", end="\n\n")
    table = _table("option", "values", "default", "meaning")
    for option in one.options:
        table.add_row(option.name, option.type, option.default, option.meaning)
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
        from prumerge.answering import answer as ask
        from prumerge.loading import open_image
        from prumerge.pictures import show as draw
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
                draw(picture, tokens.grid, reduction).save(draft)
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
    table = _table("picture", "question", "right", "576 tokens", str(method), "tokens")
    for row in rows:
        answers = (row["untouched"]["answer"], row["reduced"]["answer"])
        tokens_left = str(row["reduced"]["visual_tokens"])
        table.add_row(Path(row["picture"]).name, row["question"], row["right"], *answers, tokens_left)
    _print(table)
    print(f"What was kept and merged: {', '.join(dict.fromkeys(row['picture'] for row in rows))}")


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
    from prumerge.reducer import make

    if keep is None:
        return make(spec)
    return make(f"{spec}{',' if ':' in spec else ':'}keep={keep}")


def _load(model: str, device: str) -> tuple[Any, Any]:
    import torch

    from prumerge.loading import load

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded, processor = load(model)
    try:
        return loaded.to(device), processor
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"there is no device {device!r} to run on: {str(error).splitlines()[0]}") from None


def _look(model: Any, processor: Any, image: Any, method: Any) -> tuple[Any, Any]:
    """The visual tokens of one picture, and the decision."""
    import torch

    from prumerge.loading import prepare
    from prumerge.splice import select

    with torch.inference_mode():
        return select(model, prepare(processor, image, "").to(model.device), method)[0]


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` only when all went well: nothing is ever half written."""
    if not path.parent.is_dir():
        raise ValueError(f"the folder {str(path.parent)!r} does not exist; make it first")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"{str(path)!r} must end in .png, .jpg or .webp")
    handle, draft = tempfile.mkstemp(suffix=path.suffix, prefix=".prumerge-", dir=path.parent)
    os.close(handle)
    try:
        yield Path(draft)
        Path(draft).chmod(0o644)
        os.replace(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            column, justify="right" if column.endswith((" ms", "tokens")) else "left", overflow="fold"
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
