"""A scene is a picture of known content, drawn from its seed alone: shapes, pictograms and signs.

The tiles come from a shipped atlas and all arithmetic is on integers, so a seed gives the same pixels
everywhere. Letters sit on the patch grid, a concession to a model of six million parameters.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.random import Generator
from PIL import Image

SIDE, PATCH = 336, 14
GRID = SIDE // PATCH
TRAIN = range(1_000_000, 9_000_000)
HELD_OUT = range(9_000_000, 10_000_000)  # other scenes of the same kind
UNSEEN = range(10_000_000, 11_000_000)  # a font and coloured shapes that training never shows

COLOURS = {
    "red": (215, 35, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 225, 40),
    "green": (35, 150, 60),
    "blue": (40, 80, 215),
    "purple": (135, 45, 165),
    "black": (22, 22, 26),
    "white": (248, 248, 248),
}
SHAPES = ["circle", "square", "triangle", "star", "heart", "cross"]
PICTOGRAMS = [
    "cat",
    "dog",
    "car",
    "tree",
    "house",
    "apple",
    "fish",
    "duck",
    "flower",
    "boat",
    "bicycle",
    "ball",
]
WORDS = [
    "bank",
    "bus",
    "beer",
    "cafe",
    "coin",
    "cold",
    "exit",
    "east",
    "fire",
    "gate",
    "golf",
    "help",
    "hotel",
]
WORDS += [
    "lake",
    "milk",
    "menu",
    "open",
    "oven",
    "park",
    "pizza",
    "salt",
    "stop",
    "taxi",
    "tea",
    "zoo",
    "zone",
]
UNSEEN_PAIRS = [
    ("purple", "circle"),
    ("black", "square"),
    ("yellow", "triangle"),
    ("blue", "star"),
    ("green", "heart"),
    ("orange", "cross"),
]
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
FONTS = ["sans", "serif", "mono", "condensed", "italic"]
SEEN_FONTS, UNSEEN_FONTS = FONTS[:4], FONTS[4:]
BACKGROUNDS = ["plain", "gradient", "stripes", "tiles", "clouds"]
REGIMES = ["huge", "few", "medium", "many"]

# what a patch shows: nothing, a kind of thing, the blank of a sign, or a letter on it
WHAT = ["background", *SHAPES, *PICTOGRAMS, "sign", *CHARACTERS[:26]]
PATCH_COLOURS = ["none", *COLOURS]

ATLAS = Path(__file__).parent / "atlas"
TILE = 136  # side of a shape or pictogram in the atlas
GLYPH = (56, 84)  # width and height of a character in the atlas; drawn at 1, 3/4 or 1/2 of it
BORDER = 7  # of a sign, around its letters


@dataclass(frozen=True)
class Thing:
    """One object: a shape has a colour, a sign a colour and a text, a pictogram neither."""

    kind: str
    colour: str | None
    box: tuple[int, int, int, int]  # left, top, width, height
    text: str | None = None

    @property
    def centre(self) -> tuple[float, float]:
        left, top, width, height = self.box
        return left + width / 2, top + height / 2


@dataclass(frozen=True)
class Scene:
    seed: int
    image: Image.Image
    objects: tuple[Thing, ...]
    background: str
    regime: str
    what: UInt8[np.ndarray, "24 24"]  # an index into WHAT per patch
    colours: UInt8[np.ndarray, "24 24"]  # an index into PATCH_COLOURS per patch

    @property
    def sign(self) -> Thing | None:
        return next((thing for thing in self.objects if thing.kind == "sign"), None)


@cache
def tiles(sheet: str) -> list[Image.Image]:
    """The tiles of one sheet of the atlas, in the order of the names above."""
    image = Image.open(ATLAS / f"{sheet}.png")
    width = GLYPH[0] if sheet in FONTS else TILE
    return [image.crop((left, 0, left + width, image.height)) for left in range(0, image.width, width)]


def scene(seed: int) -> Scene:
    """Draw the scene of this seed; those of `UNSEEN` show what no other scene shows."""
    random = np.random.default_rng(seed)
    unseen = seed in UNSEEN
    regime = REGIMES[random.choice(4, p=[0.15, 0.15, 0.3, 0.4])]
    background = BACKGROUNDS[random.integers(len(BACKGROUNDS))]
    canvas = Image.fromarray(draw_background(background, random))
    what = np.zeros((SIDE, SIDE), np.uint8)
    colours = np.zeros((SIDE, SIDE), np.uint8)
    objects: list[Thing] = []
    for kind, colour, text, (width, height) in contents(regime, unseen, random):
        spot = free_spot(objects, width, height, random, on_grid=kind == "sign")
        if spot is None:
            continue
        thing = Thing(kind, colour, (*spot, width, height), text)
        objects.append(thing)
        if kind == "sign":
            fonts = UNSEEN_FONTS if unseen else SEEN_FONTS
            draw_sign(canvas, what, colours, thing, fonts[random.integers(len(fonts))], random)
        else:
            draw_thing(canvas, what, colours, thing, random)
    return Scene(seed, canvas, tuple(objects), background, regime, per_patch(what), per_patch(colours))


def contents(
    regime: str, unseen: bool, random: Generator
) -> list[tuple[str, str | None, str | None, tuple[int, int]]]:
    """What to draw, the largest first: kind, colour, text, size."""
    small, large, fewest, most = {
        "huge": (160, 290, 1, 1),
        "few": (20, 44, 1, 2),
        "medium": (44, 96, 2, 4),
        "many": (20, 46, 5, 8),
    }[regime]
    number = int(random.integers(fewest, most + 1))
    chosen: list[tuple[str, str | None, str | None, tuple[int, int]]] = []
    if random.random() < {"huge": 0.35, "few": 0.5, "medium": 0.5, "many": 0.35}[regime]:
        word = WORDS[random.integers(len(WORDS))]
        quarters = {"huge": 4, "few": 2, "medium": 3, "many": 2}[regime]
        width, height = GLYPH[0] * quarters // 4, GLYPH[1] * quarters // 4
        size = (len(word) * width + 2 * BORDER, height + 2 * BORDER)
        chosen.append(("sign", pick(list(COLOURS), random), word, size))
        number -= regime == "huge"
    things = [a_thing(unseen, random) for _ in range(number)]
    if number >= 2 and random.random() < {"few": 0.4, "medium": 0.5, "many": 0.85}.get(regime, 0):
        copies = min(
            int(random.choice([2, 3, 4, 5, 5])), number
        )  # several of a kind, so that there is something to count
        same_colour = random.random() < 0.5
        for place in range(1, copies):
            kind, colour = things[0]
            things[place] = (
                kind,
                colour if same_colour or colour is None else a_colour(kind, unseen, random),
            )
    for kind, colour in things:
        side = int(random.integers(small, large + 1))
        chosen.append((kind, colour, None, (side, side)))
    return chosen


def a_thing(unseen: bool, random: Generator) -> tuple[str, str | None]:
    if random.random() < 0.5:
        shape = pick(SHAPES, random)
        return shape, a_colour(shape, unseen, random)
    return pick(PICTOGRAMS, random), None


def a_colour(shape: str, unseen: bool, random: Generator) -> str:
    return pick([colour for colour in COLOURS if ((colour, shape) in UNSEEN_PAIRS) == unseen], random)


def pick(names: list[str], random: Generator) -> str:
    return names[random.integers(len(names))]


def free_spot(
    objects: list[Thing], width: int, height: int, random: Generator, on_grid: bool, gap: int = 4
) -> tuple[int, int] | None:
    """A place that touches no other object, or None after too many tries."""
    for _ in range(80):
        left, top = int(random.integers(0, SIDE - width + 1)), int(random.integers(0, SIDE - height + 1))
        if on_grid:  # the letters, not the border, sit on the patch grid
            left, top = left // PATCH * PATCH + PATCH - BORDER, top // PATCH * PATCH + PATCH - BORDER
            if left + width > SIDE or top + height > SIDE:
                continue
        if all(
            left >= x + w + gap or x >= left + width + gap or top >= y + h + gap or y >= top + height + gap
            for x, y, w, h in (thing.box for thing in objects)
        ):
            return left, top
    return None


def draw_thing(
    canvas: Image.Image,
    what: UInt8[np.ndarray, "336 336"],
    colours: UInt8[np.ndarray, "336 336"],
    thing: Thing,
    random: Generator,
) -> None:
    left, top, width, height = thing.box
    if thing.colour:
        mask = tiles("shapes")[SHAPES.index(thing.kind)].resize((width, height), Image.Resampling.BILINEAR)
        tile = Image.new("RGB", (width, height), shade(thing.colour, random))
    else:
        tile = tiles("pictograms")[PICTOGRAMS.index(thing.kind)]
        tile = tile.resize((width, height), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = tile.getchannel("A")
    canvas.paste(tile, (left, top), mask)
    inside = np.asarray(mask) > 127
    what[top : top + height, left : left + width][inside] = WHAT.index(thing.kind)
    colours[top : top + height, left : left + width][inside] = PATCH_COLOURS.index(thing.colour or "none")


def draw_sign(
    canvas: Image.Image,
    what: UInt8[np.ndarray, "336 336"],
    colours: UInt8[np.ndarray, "336 336"],
    sign: Thing,
    font: str,
    random: Generator,
) -> None:
    left, top, width, height = sign.box
    text = (sign.text or "").upper()
    board = shade(sign.colour or "white", random)
    ink = (15, 15, 15) if sum(board) > 440 else (250, 250, 250)
    canvas.paste(ink, (left, top, left + width, top + height))  # a thin rim in the colour of the letters
    canvas.paste(board, (left + 2, top + 2, left + width - 2, top + height - 2))
    what[top : top + height, left : left + width] = WHAT.index("sign")
    colours[top : top + height, left : left + width] = PATCH_COLOURS.index(sign.colour or "none")
    glyphs = tiles(font)
    cell = (width - 2 * BORDER) // len(text), height - 2 * BORDER
    for place, character in enumerate(text):
        x, y = left + BORDER + place * cell[0], top + BORDER
        mask = glyphs[CHARACTERS.index(character)].resize(cell, Image.Resampling.BILINEAR)
        canvas.paste(ink, (x, y), mask)
        what[y : y + cell[1], x : x + cell[0]] = WHAT.index(character)


def shade(colour: str, random: Generator) -> tuple[int, int, int]:
    """The colour, a little varied."""
    red, green, blue = (np.array(COLOURS[colour]) + random.integers(-14, 15, 3)).clip(0, 255).tolist()
    return red, green, blue


def draw_background(kind: str, random: Generator) -> UInt8[np.ndarray, "336 336 3"]:
    """A muted background, on which both black and white stand out."""
    first, second = random.integers(105, 196, (2, 3), dtype=np.int16)
    if kind == "plain":
        pixels = np.broadcast_to(first, (SIDE, SIDE, 3)).copy()
    elif kind == "gradient":
        ramp = np.arange(SIDE)[:, None]
        rows = ((first * (SIDE - 1 - ramp) + second * ramp) // (SIDE - 1)).astype(np.int16)
        pixels = np.broadcast_to(rows[:, None], (SIDE, SIDE, 3)).copy()
        if random.random() < 0.5:
            pixels = pixels.transpose(1, 0, 2).copy()
    elif kind == "stripes":
        second = first + (second - first) // 3
        period = int(random.integers(12, 49))
        slant, offset = random.integers(-2, 3), np.arange(SIDE)
        stripe = (offset[None] * 2 + offset[:, None] * slant) // period % 2
        pixels = np.where(stripe[..., None] == 0, first, second)
    elif kind == "tiles":
        count = int(random.integers(6, 25))
        jitter = random.integers(-24, 25, (count, count, 3), dtype=np.int16) + first
        place = np.arange(SIDE) * count // SIDE
        pixels = jitter[place[:, None], place[None]]
    else:  # clouds: a coarse random grid, smoothed
        coarse = (first + random.integers(-38, 39, (6, 6, 3))).clip(0, 255).astype(np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(
            np.int16
        )
    grain = random.integers(-4, 5, (SIDE, SIDE, 1), dtype=np.int8)
    return (pixels + grain).clip(0, 255).astype(np.uint8)


def per_patch(labels: UInt8[np.ndarray, "336 336"]) -> UInt8[np.ndarray, "24 24"]:
    """The commonest label of each patch; background only where it fills three quarters."""
    blocks = (
        labels.reshape(GRID, PATCH, GRID, PATCH).transpose(0, 2, 1, 3).reshape(GRID * GRID, PATCH * PATCH)
    )
    best = np.zeros(GRID * GRID, np.uint8)
    most = np.full(GRID * GRID, PATCH * PATCH // 4)
    for label in np.bincount(labels.ravel())[1:].nonzero()[0] + 1:
        count = (blocks == label).sum(1)
        best[count > most] = label
        most = np.maximum(most, count)
    return best.reshape(GRID, GRID)
