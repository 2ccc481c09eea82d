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
    judge: shared.JudgeOption = None,
    judge_model: shared.JudgeModelOption = None,
    judge_seed: shared.JudgeSeedOption = 0,
    chart: shared.ChartOption = "png",
    as_json: shared.JsonOption = False,
) -> None:
    """Score saved answers again, without a model."""
    from prumerge.cli.reports import check, judge_of, judge_saved, report

    check(chart)
    from prumerge.evaluate.log import read
    from prumerge.evaluate.report import rescored, tasks

    _, records = read(path)
    folder = path.parent if path.is_file() else path
    asked = judge_of(tasks(records), judge, judge_model, judge_seed)
    if asked is not None:
        judge_saved(folder, records, asked)
    report(folder, [rescored(record) for record in records], chart, as_json)
