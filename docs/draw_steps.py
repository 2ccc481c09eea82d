"""Draw docs/images/steps.png, one picture through the steps: `python docs/draw_steps.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

import prumerge
from prumerge.tiny import samples

TARGET = Path(__file__).parent / "images" / "steps.png"
GAP, CAPTION = 12, 34  # pixels around a panel of prumerge.show, and below its panels


def main() -> None:
    """The picture, its class attention, what is kept and what absorbed what."""
    model, processor = prumerge.load("tiny")
    picture = prumerge.open_image(samples()[1].path)
    inputs = processor(
        images=picture, text="USER: <image>\nwhat does the sign say? ASSISTANT:", return_tensors="pt"
    )
    with torch.no_grad():
        ((tokens, reduction),) = prumerge.select(model, inputs, "prumerge:keep=36")
    sheet = prumerge.show(picture, tokens.grid, reduction)
    side = sheet.height - 2 * GAP - CAPTION
    shown, kept, merged = (
        np.asarray(sheet.crop((left, GAP, left + side, GAP + side)))
        for left in (GAP + number * (side + GAP) for number in range(3))
    )
    attention = tokens.attention(split_heads=False).view(tokens.grid[1:]).log().numpy()
    figure = Figure(figsize=(9, 9.6), layout="constrained")
    panels = {
        f"1 encode: {len(tokens)} patches": shown,
        "2 score: log class attention": None,
        f"3 select: the {len(reduction) - 1} best": kept,
        "4 merge: one colour, one token": merged,
    }
    for axes, (title, pixels) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.imshow(attention if pixels is None else pixels, cmap="magma")
        axes.set_title(title, fontsize=15)
        axes.axis("off")
    figure.savefig(TARGET, dpi=110, metadata={"Software": None})
    with Image.open(TARGET) as drawn:
        drawn.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
