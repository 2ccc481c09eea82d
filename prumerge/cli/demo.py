"""`prumerge demo`: questions about the sample pictures, with all visual tokens and with few."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import check_folder, print_json, print_table, say, status, written


def demo(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Where the pictures go.")] = Path("demo"),
    reducer: shared.ReducerOption = "prumerge",
    keep: shared.KeepOption = None,
    as_json: shared.JsonOption = False,
) -> None:
    """Ask about the samples with all and with few tokens."""
    check_folder(folder)
    with status("loading"):
        from prumerge.cli.model import ask, look, open_model, tokens_left
        from prumerge.drawing import show as draw
        from prumerge.loading.images import open_image
        from prumerge.tiny import samples

        method, options = shared.method_of(reducer, keep), shared.options_of()
        model, processor = open_model("tiny", "cpu")
    rows: list[dict[str, Any]] = []
    available = 0
    for sample in samples():
        picture, target = open_image(sample.path), folder / f"{sample.path.stem}.png"
        with status(f"looking at {sample.path.name}"):
            tokens, reduction = look(model, processor, picture, method, sample.questions[0].text)
            available = tokens.patches
            drawn = draw(picture, tokens.picture_grid, reduction)
            with written(target) as draft:
                drawn.save(draft)
            for question in sample.questions:
                untouched, reduced = (
                    ask(model, processor, picture, question.text, each, options) for each in (None, method)
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
        print_json(rows)
        return
    table = [
        [
            Path(row["picture"]).stem,
            row["question"],
            row["right"],
            row["untouched"]["answer"],
            row["reduced"]["answer"],
            f"{row['reduced']['visual_tokens']:g}",
        ]
        for row in rows
    ]
    print_table(("picture", "question", "right", f"all {available}", "few", "tokens"), table)
    counts = {tokens_left(row["reduced"]["visual_tokens"], method, available) for row in rows}
    left = f"{counts.pop()} visual tokens" if len(counts) == 1 else "as many visual tokens as it chose"
    say(f"few: {method}, {left}.")
    say(f"What was kept and merged: {', '.join(dict.fromkeys(row['picture'] for row in rows))}")
