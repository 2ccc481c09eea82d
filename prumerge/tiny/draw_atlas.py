"""Draw the tiles every scene is pasted from: `python -m prumerge.tiny.draw_atlas FONT_FOLDER ...`.

Run once, and the PNGs are shipped: a scene must not change with the version of a font or of FreeType.
Needs DejaVu (`fonts-dejavu`) and Noto Color Emoji (`fonts-noto-color-emoji`); see NOTICE.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from prumerge.tiny.scenes import ATLAS, CHARACTERS, FONTS, GLYPH, PICTOGRAMS, SHAPES, TILE

EMOJI = "🐱🐶🚗🌳🏠🍎🐟🦆🌻⛵🚲⚽"
FONT_FILES = dict(
    sans="DejaVuSans-Bold",
    serif="DejaVuSerif-Bold",
    mono="DejaVuSansMono-Bold",
    condensed="DejaVuSansCondensed-Bold",
    italic="DejaVuSerif-BoldItalic",
)
OVERSAMPLE = 4
POLYGONS: dict[str, list[tuple[float, float]]] = {  # in the unit square
    "square": [(0.08, 0.08), (0.92, 0.08), (0.92, 0.92), (0.08, 0.92)],
    "triangle": [(0.5, 0.05), (0.98, 0.93), (0.02, 0.93)],
    "star": [
        (0.5, 0.0), (0.618, 0.363), (1.0, 0.363), (0.691, 0.588), (0.809, 0.951),
        (0.5, 0.727), (0.191, 0.951), (0.309, 0.588), (0.0, 0.363), (0.382, 0.363),
    ],
    "cross": [
        (0.33, 0.03), (0.67, 0.03), (0.67, 0.33), (0.97, 0.33), (0.97, 0.67), (0.67, 0.67),
        (0.67, 0.97), (0.33, 0.97), (0.33, 0.67), (0.03, 0.67), (0.03, 0.33), (0.33, 0.33),
    ],
}  # fmt: skip


def shape(name: str) -> Image.Image:
    side = TILE * OVERSAMPLE
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    if name == "circle":
        pen.ellipse([0.04 * side, 0.04 * side, 0.96 * side, 0.96 * side], fill=255)
    elif name == "heart":
        pen.ellipse([0.02 * side, 0.08 * side, 0.52 * side, 0.58 * side], fill=255)
        pen.ellipse([0.48 * side, 0.08 * side, 0.98 * side, 0.58 * side], fill=255)
        pen.polygon([(x * side, y * side) for x, y in [(0.06, 0.45), (0.94, 0.45), (0.5, 0.98)]], fill=255)
        pen.rectangle([0.3 * side, 0.3 * side, 0.7 * side, 0.5 * side], fill=255)
    else:
        pen.polygon([(x * side, y * side) for x, y in POLYGONS[name]], fill=255)
    return mask.resize((TILE, TILE), Image.Resampling.BOX)


def pictogram(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    canvas = Image.new("RGBA", (200, 200))
    ImageDraw.Draw(canvas).text((30, 30), emoji, font=font, embedded_color=True)
    tile = canvas.crop(canvas.getbbox())
    side = max(tile.size)
    square = Image.new("RGBA", (side, side))
    square.paste(tile, ((side - tile.width) // 2, (side - tile.height) // 2))
    return square.resize((TILE, TILE), Image.Resampling.LANCZOS)


def glyph(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One character on the common baseline, centred, squeezed if it is wider than its cell."""
    width, height = GLYPH[0] * OVERSAMPLE, GLYPH[1] * OVERSAMPLE
    ink = Image.new("L", (4 * width, height))
    ImageDraw.Draw(ink).text((2 * width, round(0.87 * height)), character, font=font, fill=255, anchor="ms")
    left, _, right, _ = ink.getbbox() or (0, 0, width, height)
    ink = ink.crop((left, 0, right, height))
    if ink.width > 0.92 * width:
        ink = ink.resize((round(0.92 * width), height), Image.Resampling.LANCZOS)
    cell = Image.new("L", (width, height))
    cell.paste(ink, ((width - ink.width) // 2, 0))
    return cell.resize(GLYPH, Image.Resampling.BOX)


def strip(tiles: list[Image.Image]) -> Image.Image:
    """Tiles side by side."""
    width, height = tiles[0].size
    row = Image.new(tiles[0].mode, (width * len(tiles), height))
    for place, tile in enumerate(tiles):
        row.paste(tile, (place * width, 0))
    return row


def main(folders: list[str]) -> None:
    def font(name: str, size: int) -> ImageFont.FreeTypeFont:
        found = [path for folder in folders for path in Path(folder).rglob(f"{name}.ttf")]
        return ImageFont.truetype(found[0], size)

    ATLAS.mkdir(exist_ok=True)
    strip([shape(name) for name in SHAPES]).save(ATLAS / "shapes.png", optimize=True)
    emoji = font("NotoColorEmoji", 109)
    assert len(EMOJI) == len(PICTOGRAMS)
    strip([pictogram(character, emoji) for character in EMOJI]).save(ATLAS / "pictograms.png", optimize=True)
    for name in FONTS:
        face = font(FONT_FILES[name], round(1.02 * GLYPH[1] * OVERSAMPLE))
        strip([glyph(character, face) for character in CHARACTERS]).save(ATLAS / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["/usr/share/fonts"])
