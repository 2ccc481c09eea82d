"""A clip is eight frames of known content, drawn from its seed alone: one thing moves, the rest stays."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from numpy.random import Generator
from PIL import Image

from prumerge.tiny.questions import Question, attribute
from prumerge.tiny.scenes import (
    BACKGROUNDS,
    SIDE,
    UNSEEN,
    Scene,
    Thing,
    a_thing,
    draw_background,
    draw_thing,
    free_spot,
    pick,
)

FRAMES = 8
STEPS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}  # towards which side
FARTHEST = 12  # pixels from one frame to the next, at most


@dataclass(frozen=True)
class Clip:
    seed: int
    frames: tuple[Scene, ...]
    mover: Thing
    """As it is in the first frame."""
    towards: str


def clip(seed: int) -> Clip:
    """Draw the clip of this seed. Seeds of `TRAIN`, `HELD_OUT` and `UNSEEN` are as for scenes."""
    random = np.random.default_rng((seed, 8))
    background = pick(BACKGROUNDS, random)
    pixels = draw_background(background, random)
    kinds: dict[str, str | None] = {}
    for _ in range(int(random.integers(2, 5))):
        kind, colour = a_thing(seed in UNSEEN, random)
        kinds.setdefault(kind, colour)
    towards = pick(list(STEPS), random)
    sides = [int(random.integers(32, 72)) for _ in kinds]
    step = int(random.integers(5, FARTHEST + 1))
    across, down = (step * (FRAMES - 1) * abs(direction) for direction in STEPS[towards])
    things: list[Thing] = []
    for (kind, colour), side in zip(kinds.items(), sides, strict=True):
        # the first is the mover: the whole of its way is kept free of the others
        width, height = (side + across, side + down) if not things else (side, side)
        spot = free_spot(things, width, height, random, on_grid=False)
        if spot:
            things.append(Thing(kind, colour, (*spot, width, height)))
    mover, *others = things
    left, top, *_ = mover.box
    way = [(left + across * n // (FRAMES - 1), top + down * n // (FRAMES - 1)) for n in range(FRAMES)]
    way = way[::-1] if towards in ("left", "top") else way
    boxes = [(x, y, sides[0], sides[0]) for x, y in way]
    frames = [
        draw(seed, number, background, pixels, (replace(mover, box=box), *others))
        for number, box in enumerate(boxes)
    ]
    return Clip(seed, tuple(frames), replace(mover, box=boxes[0]), towards)


def draw(
    seed: int, number: int, background: str, pixels: UInt8[np.ndarray, "336 336 3"], things: tuple[Thing, ...]
) -> Scene:
    """One frame; a thing has the same shade in all of them."""
    canvas = Image.fromarray(pixels)
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    for place, thing in enumerate(things):
        draw_thing(canvas, nothing, nothing, thing, np.random.default_rng((seed, 9, place)))
    empty = np.zeros((24, 24), np.uint8)
    return Scene(seed, canvas, things, background, f"frame {number}", empty, empty)


def towards(drawn: Clip, random: Generator) -> Question:
    """Where to something moves."""
    text = pick(
        [f"where does the {drawn.mover.kind} move to?", f"where is the {drawn.mover.kind} moving to?"], random
    )
    return Question("motion", text, drawn.towards)


def mover(drawn: Clip, random: Generator) -> Question:
    return Question("mover", pick(["what moves?", "which object moves?"], random), drawn.mover.kind)


def seen(drawn: Clip, random: Generator) -> Question | None:
    """The colour or the shape of something, which any frame tells."""
    question = attribute(drawn.frames[0], random)
    return replace(question, family="clip attribute") if question else None


FAMILIES: dict[str, Callable[[Clip, Generator], Question | None]] = {
    "motion": towards,
    "mover": mover,
    "clip attribute": seen,
}


def clip_questions(drawn: Clip, seed: int, count: int) -> list[Question]:
    """Up to `count` different questions about one clip."""
    random = np.random.default_rng((drawn.seed, seed, 8))
    names = list(FAMILIES)
    asked = [FAMILIES[names[random.integers(len(names))]](drawn, random) for _ in range(count)]
    return list({question.text: question for question in asked if question}.values())
