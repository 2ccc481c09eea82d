"""`prumerge samples`: pictures to ask about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import check_folder, print_json, print_table, say, written


def samples(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where to write the pictures. [default: nowhere]", show_default=False),
    ] = None,
    as_json: shared.JsonOption = False,
) -> None:
    """List the sample pictures, or write them to a folder."""
    from prumerge.tiny import samples as shipped

    found = shipped()
    if folder is not None:
        check_folder(folder)
        for sample in found:
            with written(folder / sample.path.name) as draft:
                draft.write_bytes(sample.path.read_bytes())
    where = folder or Path()  # by their names alone if they were not written
    if as_json:
        print_json(
            [
                {"picture": str(where / one.path.name), "questions": [vars(each) for each in one.questions]}
                for one in found
            ]
        )
        return
    rows = [
        [str(number), str(where / one.path.name), each.text, each.answer]
        for number, one in enumerate(found, 1)
        for each in one.questions
    ]
    print_table(("sample", "picture", "question", "answer"), rows)
    say('Ask about one: prumerge answer --sample 1 "is there a heart?"')
