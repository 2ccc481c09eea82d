"""`prumerge plot-attention`: the paper's figure 3a."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prumerge.cli import options as shared
from prumerge.cli.output import CHARTS, check_target, need, print_json, say, status, written


def plot_attention(
    image: Annotated[
        str | None,
        typer.Argument(help="A picture: JPEG, PNG, WebP, ...; left out with --sample.", show_default=False),
    ] = None,
    output: shared.OutputOption = Path("attention.png"),
    sample: shared.SampleOption = None,
    model: shared.ModelOption = "tiny",
    heads: Annotated[
        str, typer.Option(help="joint (as the official code) or split (the encoder's own).")
    ] = "joint",
    iqr: Annotated[
        float, typer.Option(min=0, help="Height of the fence above the third quartile, in IQRs.")
    ] = 1.5,
    device: shared.DeviceOption = "auto",
    as_json: shared.JsonOption = False,
) -> None:
    """Plot class attention and the outlier fence (figure 3a)."""
    path = shared.seen(image, sample)
    check_target(output, CHARTS)
    need("matplotlib", "plot")
    with status("loading"):
        from prumerge import ops
        from prumerge.cli.model import look, open_model
        from prumerge.drawing import plot_attention as plot
        from prumerge.loading.images import open_image

        method, picture = shared.method_of(f"topk:heads={heads},iqr={iqr}", None), open_image(path)
        loaded, processor = open_model(model, device)
    tokens, _ = look(loaded, processor, picture, method)
    split_heads = heads == "split"
    figure = plot(tokens, split_heads=split_heads, iqr=iqr)
    with written(output) as draft:
        figure.savefig(draft, dpi=150)
    scores = tokens.attention(split_heads=split_heads)
    if as_json:
        fence = float(ops.upper_fence(scores, iqr))
        print_json({"attention": scores.tolist(), "fence": fence, "picture": str(output)})
    else:
        outliers = int(ops.outliers(scores, iqr).sum())
        say(f"{outliers} of {len(tokens)} visual tokens are outliers; see {output}")
