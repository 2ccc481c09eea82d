"""`prumerge lmms-task`: a task of lmms-eval on data that lies on this disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prumerge.cli.output import check_folder, say, written


def lmms_task(
    name: Annotated[str, typer.Argument(help="A task of lmms-eval, such as pope; see `lmms-eval tasks`.")],
    data: Annotated[
        Path,
        typer.Option(help="Its data: a folder of parquet or json files, one file, or one of save_to_disk."),
    ],
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of tasks for --include_path.")
    ] = Path("lmms_tasks"),
) -> None:
    """Point a task of lmms-eval at data on this disk."""
    from prumerge.lmms_eval.local_task import local_task

    task = local_task(name, data)
    check_folder(folder)
    path = folder / f"{task.name}.yaml"
    with written(path) as draft:
        draft.write_text(task.text(), encoding="utf-8")
    say(
        f"{path} reads {name} from {data}; run it by: prumerge lmms-eval --model prumerge --model_args "
        f"model=tiny,reducer=prumerge --tasks {task.name} --include_path {folder}"
    )
