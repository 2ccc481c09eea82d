"""`prumerge show`: a picture of what a method keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import PICTURES, check_target, print_json, say, status, written


def show(
    media: shared.MediaArgument = None,
    output: shared.OutputOption = Path("kept.png"),
    sample: shared.SampleOption = None,
    frames: shared.FramesOption = None,
    question: Annotated[
        str | None, typer.Option(help="What is asked, for methods that read it.", show_default=False)
    ] = None,
    model: shared.ModelOption = "tiny",
    reducer: shared.ReducerOption = "prumerge",
    keep: shared.KeepOption = None,
    relevance_model: shared.RelevanceOption = None,
    device: shared.DeviceOption = "auto",
    as_json: shared.JsonOption = False,
) -> None:
    """Draw which visual tokens a method keeps and merges."""
    path = shared.seen(media, sample)
    check_target(output, PICTURES)
    with status("loading"):
        from prumerge.cli.model import look, open_model, show_media, tokens_left
        from prumerge.drawing import show as draw

        method, options = shared.method_of(reducer, keep), shared.options_of()
        shared.check_question(method, question)
        shown = show_media(path, frames)
        loaded, processor = open_model(model, device)
        if relevance_model is not None:
            clip = shared.ClipRelevance(relevance_model, [method], loaded.device)
            options = replace(options, relevance=clip(question or ""))
    tokens, reduction = look(loaded, processor, shown, method, question or "", options)
    picture = draw(shown, tokens.picture_grid, reduction)
    with written(output) as draft:
        picture.save(draft)
    if as_json:
        report = {"method": str(method), "visual_tokens": tokens.patches, "kept": len(reduction)}
        print_json({**report, "index": reduction.index.tolist(), "picture": str(output)})
    else:
        left = tokens_left(len(reduction), method, tokens.patches)
        say(f"{left} of {tokens.patches} visual tokens left; see {output}")
