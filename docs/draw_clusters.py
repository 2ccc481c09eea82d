"""Draw what stands for what in a sample picture: PruMerge above, medoids below, 36 visual tokens each.

python docs/draw_clusters.py      # writes docs/images/clusters.png
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

import prumerge
from prumerge.cli.model import look, open_model, show_media
from prumerge.cli.options import seen
from prumerge.pipeline.options import DEFAULT

METHODS = ("prumerge:keep=35", "medoids:keep=36")  # the extra token of the first comes on top


def main() -> None:
    model, processor = open_model("tiny", "cpu")
    shown = show_media(seen(None, "4"), None)
    sheets = []
    with torch.inference_mode():
        for method in METHODS:
            tokens, reduction = look(model, processor, shown, prumerge.make(method), "", DEFAULT)
            sheets.append(prumerge.show(shown, tokens.picture_grid, reduction))
    whole = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)), "white")
    for number, sheet in enumerate(sheets):
        whole.paste(sheet, (0, number * sheets[0].height))
    whole.quantize(256).save(Path(__file__).parent / "images" / "clusters.png", optimize=True)


if __name__ == "__main__":
    main()
