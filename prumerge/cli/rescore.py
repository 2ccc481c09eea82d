"""`prumerge rescore`: reports of saved answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prumerge.cli import options as shared


def rescore(
    path: Annotated[
        Path, typer.Argument(help="A folder that `prumerge evaluate` wrote, or its file of answers.")
    ],
    chart: shared.ChartOption = "png",
    as_json: shared.JsonOption = False,
) -> None:
    """Score saved answers again, without a model."""
    from prumerge.cli.reports import check, report

    check(chart)
    from prumerge.evaluate.log import read
    from prumerge.evaluate.report import rescored

    _, records = read(path)
    report(path.parent if path.is_file() else path, [rescored(record) for record in records], chart, as_json)
