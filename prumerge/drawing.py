"""Pictures of what a method does: what was kept, who absorbed what, and the class attention behind it."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from prumerge import ops
from prumerge.errors import MissingPackage, PrumergeError
from prumerge.loading.images import as_rgb
from prumerge.tokens import Reduction, VisualTokens

_PANEL, _GAP, _CAPTION = 480, 12, 34
_PALE = (0.92, 0.92, 0.92)


def show(
    image: Image.Image | Sequence[Image.Image], grid: tuple[int, int, int], reduction: Reduction
) -> Image.Image:
    """The picture | the patches that were kept | who absorbed what; a video has a row for each frame.

    The picture is cropped to the grid's shape around its centre, as CLIP's image processor does. In the third
    panel patches of one colour went into the same token: the strongest one that took them, or the one that
    the reduction's `assignment` says. What is left is outlined. Pale patches went nowhere, or into one token
    for all the rest such as PruMerge's extra token.

    Pictures may be of any mode. Raises PrumergeError for what is no picture, for another number of pictures
    than the grid has frames, and for a reduction of other tokens than the grid's.
    """
    images = [as_rgb(one) for one in ([image] if isinstance(image, Image.Image) else _several(image))]
    if not isinstance(reduction, Reduction):
        raise PrumergeError(
            f"show() draws a Reduction, not {type(reduction).__name__}; select() returns them"
        )
    frames, rows, columns = grid
    if len(images) != frames:
        raise PrumergeError(f"the tokens are of {frames} frames, but {len(images)} pictures were given")
    if len(reduction) and int(reduction.index.max()) >= frames * rows * columns:
        raise PrumergeError(
            f"the reduction is of other tokens: it keeps number {int(reduction.index.max())}, and a grid of "
            f"{frames} x {rows} x {columns} has {frames * rows * columns}"
        )
    cell = max(4, _PANEL // max(rows, columns))
    width, height = columns * cell, rows * cell
    owner = owners(grid, reduction).view(frames, rows, columns).numpy()
    kept = torch.zeros(frames * rows * columns, dtype=torch.bool)
    kept[reduction.index.cpu()] = True
    kept_map = kept.view(frames, rows, columns).numpy()

    sheet = Image.new("RGB", (3 * width + 4 * _GAP, frames * (height + _GAP) + _GAP + _CAPTION), "white")
    for frame, whole in enumerate(images):
        pixels = np.asarray(ImageOps.fit(whole, (width, height)))
        top = _GAP + frame * (height + _GAP)
        panels = [pixels, _keep(pixels, kept_map[frame], cell), _merge(pixels, owner[frame], cell)]
        for number, panel in enumerate(panels):
            sheet.paste(Image.fromarray(panel), (_GAP + number * (width + _GAP), top))
        _outline(sheet, kept_map[frame], cell, _GAP + 2 * (width + _GAP), top)
    third = "nothing is merged" if reduction.assignment is None else "who stands for what"
    captions = [
        f"{len(kept)} visual tokens",
        f"{len(reduction)} left ({len(reduction) / len(kept):.1%})",
        third if reduction.weights is None else "who absorbed what",
    ]
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for number, caption in enumerate(captions):
        middle = _GAP + number * (width + _GAP) + width // 2
        draw.text((middle, sheet.height - _CAPTION // 2 - 4), caption, fill="black", font=font, anchor="mm")
    return sheet


def _several(images: Any) -> list[Any]:
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return list(images)
    return [images]  # which is no picture, and is told so


def plot_attention(tokens: VisualTokens, *, split_heads: bool = False, iqr: float = 1.5) -> Any:
    """Figure 3a of the paper, for matplotlib: log class attention in raster order and sorted, with the fence.

    Raises ModuleNotFoundError, saying how to install it, without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingPackage("plots need matplotlib; install it with: pip install 'prumerge[plot]'") from None
    scores = tokens.attention(split_heads=split_heads).detach().cpu()
    fence = float(ops.upper_fence(scores, iqr))
    outlier = ops.outliers(scores, iqr)
    order = scores.argsort(descending=True)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    place = torch.arange(len(scores))
    for axes, places, at in ((left, place, place), (right, order, place)):
        inside = ~outlier[places]
        axes.scatter(at[inside], scores[places][inside], s=7, color="tab:grey", label="other tokens")
        axes.scatter(at[~inside], scores[places][~inside], s=9, color="tab:red", label="outliers, kept")
        axes.axhline(fence, color="tab:blue", linewidth=1, label=f"fence Q3 + {iqr:g} IQR")
        axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    left.set(xlabel="visual token, raster order", ylabel="class attention")
    right.set(xlabel="visual token, sorted by attention")
    right.legend(frameon=False)
    figure.suptitle(f"{int(outlier.sum())} of {len(scores)} visual tokens are outliers", fontsize=11)
    return figure


def owners(grid: tuple[int, int, int], reduction: Reduction) -> Int[torch.Tensor, "N"]:
    """For each patch the row that it is assigned to, or else that took most of it, the nearest of equals; -1
    where none did."""
    if reduction.assignment is not None:
        return reduction.assignment.cpu()
    frames, rows, columns = grid
    count = frames * rows * columns
    index = reduction.index.cpu()
    if reduction.weights is None:
        weights = ops.one_hot(index, count)
    else:  # without the class token's column, where there is one
        weights = reduction.weights.detach().cpu()[:, :count]
    row = torch.arange(count) // columns
    place = torch.stack([row, torch.arange(count) % columns], dim=1).float()
    distance = torch.cdist(place[index], place) / (frames * rows + columns)
    strongest = weights.max(0).values
    score = torch.where(weights > 0.999 * strongest, 1 - distance, -torch.inf)
    return torch.where(strongest > 0, score.argmax(0), -1)


def _spread(cells: np.ndarray, cell: int) -> np.ndarray:
    """A value for each patch to a value for each pixel."""
    return cells.repeat(cell, axis=0).repeat(cell, axis=1)


def _keep(pixels: np.ndarray, kept: np.ndarray, cell: int) -> UInt8[np.ndarray, "H W 3"]:
    faded = (pixels * 0.18 + np.array(_PALE) * 255 * 0.82).astype(np.uint8)
    return np.where(_spread(kept, cell)[..., None], pixels, faded)


def _merge(pixels: np.ndarray, owner: np.ndarray, cell: int) -> UInt8[np.ndarray, "H W 3"]:
    # Neighbouring numbers get hues far apart: steps of the golden ratio around the circle.
    palette = [colorsys.hsv_to_rgb(number * 0.618 % 1, 0.85, 0.95) for number in range(int(owner.max()) + 1)]
    colours = np.array([*palette, _PALE]) * 255
    taken = np.bincount(owner[owner >= 0], minlength=len(palette))
    colours[:-1][taken > owner.size / 2] = np.array(_PALE) * 255
    pale = (colours[owner] == colours[-1]).all(-1)
    share = np.where(_spread(pale, cell)[..., None], 0.82, 0.6)
    return (pixels.mean(axis=2, keepdims=True) * (1 - share) + _spread(colours[owner], cell) * share).astype(
        np.uint8
    )


def _outline(sheet: Image.Image, kept: np.ndarray, cell: int, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    for row, column in np.argwhere(kept):
        x, y = left + column * cell, top + row * cell
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline="black", width=max(1, cell // 10))
