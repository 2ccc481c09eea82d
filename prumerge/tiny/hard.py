"""Hard scenes: many small objects, dense grids, up to nine of a kind, two signs with long words.

Behind them lies a texture that draws attention and means nothing. The tiles, the colours and the exactness
are those of `scenes`, and a seed gives the same pixels everywhere. What keeps them learnable for a model of
six million parameters: no object is smaller than 20 pixels, letters sit on the patch grid, and so do the
cells of a grid of objects, which begin in the top left corner.
"""

import numpy as np
from jaxtyping import Int16, UInt8
from numpy.random import Generator
from PIL import Image

from prumerge.tiny.scenes import (
    BACKGROUNDS,
    BORDER,
    COLOURS,
    GLYPH,
    SEEN_FONTS,
    SIDE,
    Scene,
    Thing,
    a_colour,
    a_thing,
    draw_background,
    draw_sign,
    draw_thing,
    free_spot,
    per_patch,
    pick,
)

TRAIN = range(20_000_000, 28_000_000)
HELD_OUT = range(28_000_000, 29_000_000)
REGIMES = ["crowd", "grid", "flock", "signs"]
TEXTURES = ["none", "noise", "checker", "confetti", "lines"]
CELL = 56  # side of a cell of a grid of objects: four patches
MOST = 9  # of a kind, in a flock

WORDS = [  # in pairs that are alike
    *("station", "stadium", "market", "marker", "kitchen", "chicken", "garden", "warden"),
    *("museum", "muesli", "airport", "airship", "harbour", "harvest", "theatre", "thermal"),
    *("school", "scholar", "bakery", "battery", "castle", "cattle", "bridge", "fridge"),
    *("street", "stream", "coffee", "toffee", "pepper", "copper", "ticket", "cricket"),
    *("island", "inland", "parking", "packing", "police", "polish", "danger", "dancer"),
    *("butter", "button", "monster", "minster", "rocket", "pocket", "candle", "handle"),
]

Content = tuple[str, str | None, str | None, tuple[int, int], tuple[int, int] | None]
"""Kind, colour, text, size, and a place if it is not any free one."""


def hard_scene(seed: int) -> Scene:
    """Draw the hard scene of this seed."""
    random = np.random.default_rng(seed)
    regime = REGIMES[random.integers(len(REGIMES))]
    background = BACKGROUNDS[random.integers(len(BACKGROUNDS))]
    canvas = Image.fromarray(textured(draw_background(background, random), random))
    what, colours = np.zeros((2, SIDE, SIDE), np.uint8)
    objects: list[Thing] = []
    for kind, colour, text, (width, height), place in CONTENTS[regime](random):
        spot = place or free_spot(objects, width, height, random, on_grid=kind == "sign")
        if spot is None:
            continue
        thing = Thing(kind, colour, (*spot, width, height), text)
        objects.append(thing)
        if kind == "sign":
            draw_sign(canvas, what, colours, thing, pick(SEEN_FONTS, random), random)
        else:
            draw_thing(canvas, what, colours, thing, random)
    return Scene(seed, canvas, tuple(objects), background, regime, per_patch(what), per_patch(colours))


def crowd(random: Generator) -> list[Content]:
    """Many small things."""
    return things(int(random.integers(8, 13)), 24, 41, random)


def flock(random: Generator) -> list[Content]:
    """Two to nine of a kind, in one colour or in several, among a few others."""
    kind, colour = a_thing(False, random)
    mixed = colour is not None and random.random() < 0.4
    alike = [
        (kind, a_colour(kind, False, random) if mixed else colour)
        for _ in range(int(random.integers(2, MOST + 1)))
    ]
    flocked = [(*one, None, (side, side), None) for one in alike for side in [int(random.integers(24, 37))]]
    return [*flocked, *things(int(random.integers(2, 6)), 24, 37, random)]


def signs(random: Generator) -> list[Content]:
    """Two signs in different colours with different words, among a few things."""
    first, second = random.choice(list(COLOURS), 2, replace=False)
    words = random.choice(WORDS, 2, replace=False)
    boards: list[Content] = []
    for colour, word in zip((first, second), words, strict=True):
        width, height = (side // 2 + 2 * BORDER for side in (len(word) * GLYPH[0], GLYPH[1]))
        boards.append(("sign", str(colour), str(word), (width, height), None))
    return [*boards, *things(int(random.integers(3, 7)), 24, 41, random)]


def grid(random: Generator) -> list[Content]:
    """Four to six rows and columns of things from a choice of six, with a gap here and there."""
    choice = [a_thing(False, random) for _ in range(6)]
    rows, columns = random.integers(4, 7, 2)
    found: list[Content] = []
    for row, column in np.ndindex(int(rows), int(columns)):
        if random.random() < 0.9:
            kind, colour = choice[random.integers(len(choice))]
            side = int(random.integers(26, 41))
            left, top = np.array([column, row]) * CELL + random.integers(4, CELL - side - 3, 2)
            found.append((kind, colour, None, (side, side), (int(left), int(top))))
    return found


CONTENTS = {"crowd": crowd, "grid": grid, "flock": flock, "signs": signs}


def things(count: int, small: int, large: int, random: Generator) -> list[Content]:
    """Any things with sides from `small` to below `large`."""
    found: list[Content] = []
    for _ in range(count):
        side = int(random.integers(small, large))
        found.append((*a_thing(False, random), None, (side, side), None))
    return found


def cell(thing: Thing) -> tuple[int, int]:
    """Row and column of a thing in a grid, from 0."""
    across, down = thing.centre
    return int(down // CELL), int(across // CELL)


def textured(pixels: UInt8[np.ndarray, "336 336 3"], random: Generator) -> UInt8[np.ndarray, "336 336 3"]:
    """A texture over all of a background, or over a few rectangles of it."""
    kind = pick(TEXTURES, random)
    if kind == "none":
        return pixels
    covered = np.zeros((SIDE, SIDE, 1), bool)
    if random.random() < 0.3:
        covered[:] = True
    for _ in range(int(random.integers(2, 6))):
        width, height = random.integers(48, 161, 2)
        left, top = random.integers(0, SIDE - width + 1), random.integers(0, SIDE - height + 1)
        covered[top : top + height, left : left + width] = True
    drawn = DRAWN[kind](pixels.astype(np.int16), random).clip(0, 255).astype(np.uint8)
    return np.where(covered, drawn, pixels)


def noise(pixels: Int16[np.ndarray, "336 336 3"], random: Generator) -> Int16[np.ndarray, "336 336 3"]:
    """Coloured grain of one to three pixels."""
    size = int(random.integers(1, 4))
    side = -(-SIDE // size)
    grain = random.integers(-60, 61, (side, side, 3), dtype=np.int16)
    return pixels + grain.repeat(size, 0).repeat(size, 1)[:SIDE, :SIDE]


def checker(pixels: Int16[np.ndarray, "336 336 3"], random: Generator) -> Int16[np.ndarray, "336 336 3"]:
    """Light and dark squares."""
    place = np.arange(SIDE) // int(random.integers(3, 12))
    contrast = int(random.integers(20, 51))
    return pixels + (((place[:, None] + place) % 2 * 2 - 1) * contrast)[..., None].astype(np.int16)


def confetti(pixels: Int16[np.ndarray, "336 336 3"], random: Generator) -> Int16[np.ndarray, "336 336 3"]:
    """Specks of two to six pixels in the colours of things."""
    pixels, count = pixels.copy(), int(random.integers(150, 400))
    names = list(COLOURS)
    corners = random.integers(0, SIDE, (count, 2))
    sizes, which = random.integers(2, 7, (count, 2)), random.integers(0, len(names), count)
    for (top, left), (height, width), number in zip(corners, sizes, which, strict=True):
        pixels[top : top + height, left : left + width] = COLOURS[names[number]]
    return pixels


def lines(pixels: Int16[np.ndarray, "336 336 3"], random: Generator) -> Int16[np.ndarray, "336 336 3"]:
    """Thin parallel lines in any colour and direction."""
    across, down = random.integers(-3, 4, 2)
    place, period = np.arange(SIDE), int(random.integers(8, 25))
    on = (place * (across or 1) + place[:, None] * down) % period < int(random.integers(1, 4))
    return np.where(on[..., None], random.integers(0, 256, 3, dtype=np.int16), pixels)


DRAWN = {"noise": noise, "checker": checker, "confetti": confetti, "lines": lines}
