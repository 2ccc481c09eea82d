"""`prumerge export-lm`: what stock vLLM loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import check_folder, print_json, say, status
from prumerge.errors import PrumergeError


def export_lm(
    model: Annotated[str, typer.Argument(help="tiny, a Hugging Face id, or a folder.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write, new or empty.")],
    whole: Annotated[
        bool, typer.Option("--whole", help="With the vision tower, its weights by the names vLLM expects.")
    ] = False,
    as_json: shared.JsonOption = False,
) -> None:
    """Write the language model alone, for an engine."""
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise PrumergeError(f"the folder {str(folder)!r} holds files; name a new one")
    with status("writing"):
        from transformers.utils import logging

        from prumerge.loading.load import load
        from prumerge.serve.export import export_language_model, export_whole

        loaded, processor = load(model)
        logging.disable_progress_bar()
        (export_whole if whole else export_language_model)(loaded, processor, folder)
    if as_json:
        print_json({"folder": str(folder), "files": sorted(path.name for path in folder.iterdir())})
    elif whole:
        say(f"written to {folder}; vLLM serves it: vllm serve {folder}")
    else:
        say(
            f"written to {folder}; serve it: vllm serve {folder} --enable-prompt-embeds --port 8100",
            f"and in front of it: prumerge serve --model {model} --engine http://localhost:8100",
        )
