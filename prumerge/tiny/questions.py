"""Ask about a scene: every question has one answer in its scene, and answers are balanced within a family.

Question generators return None where the scene leaves nothing to ask, e.g. no sign to read.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from prumerge.tiny.scenes import (
    COLOURS,
    PICTOGRAMS,
    SHAPES,
    SIDE,
    UNSEEN,
    UNSEEN_PAIRS,
    WORDS,
    Scene,
    Thing,
    pick,
)

NUMBERS = ["zero", "one", "two", "three", "four", "five"]
LETTERS = "abcd"
PLURALS = {kind: kind + "s" for kind in [*SHAPES, *PICTOGRAMS, "sign"]}
PLURALS |= {"cross": "crosses", "fish": "fish"}


@dataclass(frozen=True)
class Question:
    family: str
    text: str
    answer: str


def questions(
    scene: Scene, seed: int = 0, count: int = 1, families: Sequence[str] = (), often: Sequence[float] = ()
) -> list[Question]:
    """Up to `count` different questions about one scene; `often` says how often each family is drawn."""
    random = np.random.default_rng((scene.seed, seed))
    names = list(families or FAMILIES)
    weights = np.array(often or [1.0] * len(names))
    drawn = [names[i] for i in random.choice(len(names), count, p=weights / weights.sum())]
    asked = [FAMILIES[name](scene, random) for name in drawn]
    return list({question.text: question for question in asked if question}.values())


def balanced(scenes: Iterator[Scene], count: int, seed: int = 0) -> Iterator[tuple[Scene, Question]]:
    """`count` questions, one per scene, the families in turn; scenes that cannot be asked are passed over."""
    for place in range(count):
        family = list(FAMILIES)[place % len(FAMILIES)]
        for scene in scenes:
            found = questions(scene, seed, families=(family,))
            if found:
                yield scene, found[0]
                break


def attribute(scene: Scene, random: Generator) -> Question | None:
    """The colour of the only star, or the shape of the only red shape."""
    kinds = Counter(thing.kind for thing in scene.objects)
    colours = Counter(thing.colour for thing in shapes(scene))
    asks = [("colour", thing) for thing in scene.objects if thing.colour and kinds[thing.kind] == 1]
    asks += [("shape", thing) for thing in shapes(scene) if colours[thing.colour] == 1]
    if not asks:
        return None
    about, thing = asks[random.integers(len(asks))]
    if about == "shape":
        text = pick([f"which shape is {thing.colour}?", f"what shape is {thing.colour}?"], random)
        return Question("attribute", text, thing.kind)
    spelling = pick(["colour", "colour", "color"], random)
    text = pick(
        [f"what {spelling} is the {thing.kind}?", f"what is the {spelling} of the {thing.kind}?"], random
    )
    return Question("attribute", text, str(thing.colour))


def existence(scene: Scene, random: Generator) -> Question | None:
    """Is there a ...? As often yes as no; half of the misses for a coloured shape are near misses."""
    yes = random.random() < 0.5
    present = {thing.kind for thing in scene.objects}
    there = {(thing.colour, thing.kind) for thing in shapes(scene)}
    names = [kind for kind in PLURALS if (kind in present) == yes]
    if random.random() < 0.4:
        pairs = [pair for pair in coloured_shapes(scene) if (pair in there) == yes]
        near = [(colour, kind) for colour, kind in pairs if kind in present]
        pairs = near if random.random() < 0.5 and near else pairs
        names = [f"{colour} {kind}" for colour, kind in pairs] or names
    name = pick(names, random) if names else None
    if name is None:
        return None
    text = pick([is_there(name), is_there(name, " in the picture")], random)
    return Question("existence", text, "yes" if yes else "no")


COUNT_WEIGHTS = np.array([0.165, 0.21, 0.53, 1.7, 6.0, 4.0])  # make the answers about equally frequent


def counting(scene: Scene, random: Generator) -> Question | None:
    kinds = Counter(thing.kind for thing in scene.objects)
    pairs = Counter((thing.colour, thing.kind) for thing in shapes(scene))
    counts = {PLURALS[kind]: kinds[kind] for kind in [*SHAPES, *PICTOGRAMS]}
    counts |= {f"{colour} {PLURALS[kind]}": pairs[colour, kind] for colour, kind in coloured_shapes(scene)}
    if random.random() < 0.25:
        return count_right(counts, random)
    available = sorted({count for count in counts.values() if count < len(NUMBERS)})
    weights = COUNT_WEIGHTS[available]
    if random.random() > weights.sum():  # a scene with nothing to count is asked less often
        return None
    count = available[random.choice(len(available), p=weights / weights.sum())]
    names = [name for name, number in counts.items() if number == count]
    near = [
        name for name in names if kinds[name_kind(name)] > count
    ]  # other colours of the same shape are there
    names = near if near and random.random() < 0.3 else names
    name = pick(names, random)
    text = pick([f"how many {name} are there?", f"how many {name} are in the picture?"], random)
    return Question("counting", text, NUMBERS[count])


def count_right(counts: dict[str, int], random: Generator) -> Question | None:
    """Are there so many? As often yes as no."""
    yes = random.random() < 0.5
    names = [name for name, number in counts.items() if (2 if yes else 1) <= number < len(NUMBERS)]
    if not names:
        return None
    name = pick(names, random)
    asked = counts[name] if yes else pick_other(counts[name], random)
    return Question("counting", f"are there {NUMBERS[asked]} {name}?", "yes" if yes else "no")


def pick_other(count: int, random: Generator) -> int:
    """Another number of things, from two to five."""
    others = [number for number in range(2, len(NUMBERS)) if number != count]
    return others[random.integers(len(others))]


def spatial(scene: Scene, random: Generator) -> Question | None:
    """Where a thing is in the picture or from another thing, or what lies in a direction of it."""
    unique = named(scene)
    if not unique:
        return None
    if random.random() < 0.25:
        true, false = positions(scene, random) or (None, None)
        yes = random.random() < 0.5
        asked = true if yes else false
        return Question("spatial", asked, "yes" if yes else "no") if asked else None
    name, thing = unique[random.integers(len(unique))]
    others = [(other, there) for other, there in unique if there is not thing]
    if not others or random.random() < 0.3:
        return side(name, thing, random)
    if random.random() < 0.5:
        other, there = others[random.integers(len(others))]
        direction = where(thing, there)
        if direction:
            return Question("spatial", f"where is the {name} from the {other}?", direction)
    directions = ["left", "right", "above", "below"]
    direction = directions[random.integers(4)]
    beyond = [
        there for there in scene.objects if there is not thing and offset(thing, there, direction) > -20
    ]
    clear = [other for other, there in others if offset(thing, there, direction) > 20]
    if len(beyond) == len(clear) == 1:
        of = {"left": "left of", "right": "right of"}.get(direction, direction)
        return Question("spatial", f"what is {of} the {name}?", clear[0])
    return None


OPPOSITE = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
    "top": "bottom",
    "bottom": "top",
}


def positions(scene: Scene, random: Generator) -> tuple[str, str] | None:
    """A true and a false yes-or-no question about where something is."""
    unique = named(scene)
    name, thing = unique[random.integers(len(unique))] if unique else ("", None)
    if thing is None:
        return None
    others = [(other, there) for other, there in unique if there is not thing and where(thing, there)]
    if others and random.random() < 0.5:
        other, there = others[random.integers(len(others))]
        direction = str(where(thing, there))
        links = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
        asked = [f"is the {name} {links[way]} the {other}?" for way in (direction, OPPOSITE[direction])]
        return asked[0], asked[1]
    half = side(name, thing, random)
    if half is None:
        return None
    links = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
    asked = [f"is the {name} {links[way]}?" for way in (half.answer, OPPOSITE[half.answer])]
    return asked[0], asked[1]


def multiple_choice(scene: Scene, random: Generator) -> Question | None:
    """Two to four lettered options, the answer is a letter."""
    number = int(random.choice([2, 3, 4, 4]))
    present = sorted({thing.kind for thing in scene.objects})
    kinds = Counter(thing.kind for thing in scene.objects)
    coloured = [thing for thing in scene.objects if thing.colour and kinds[thing.kind] == 1]
    about = random.random()
    if about < 0.25 and scene.sign:
        text, right, wrong = "what does the sign say?", str(scene.sign.text), WORDS
        wrong = [word for word in wrong if word != right]
    elif about < 0.5 and coloured:
        thing = coloured[random.integers(len(coloured))]
        text, right = f"what colour is the {thing.kind}?", str(thing.colour)
        wrong = [colour for colour in COLOURS if colour != right]
    else:
        text, right = "which is in the picture?", pick(present, random) if present else ""
        wrong = [kind for kind in [*SHAPES, *PICTOGRAMS, "sign"] if kind not in present]
    if not right:
        return None
    options = [str(option) for option in random.choice(wrong, number - 1, replace=False)]
    place = int(random.integers(number))
    options.insert(place, right)
    listed = " ".join(f"{letter}: {option}" for letter, option in zip(LETTERS, options, strict=False))
    return Question("multiple choice", f"{text} {listed}", LETTERS[place])


def reading(scene: Scene, random: Generator) -> Question | None:
    if scene.sign is None:
        return None
    text = pick(
        ["what does the sign say?", "what is written on the sign?", "which word is on the sign?"], random
    )
    return Question("reading", text, str(scene.sign.text))


def coloured_shapes(scene: Scene) -> list[tuple[str, str]]:
    """The pairs that may be asked about: training and its like never speak of the unseen ones."""
    pairs = [(colour, shape) for shape in SHAPES for colour in COLOURS]
    return [pair for pair in pairs if scene.seed in UNSEEN or pair not in UNSEEN_PAIRS]


def is_there(name: str, where: str = "") -> str:
    return f"is there {'an' if name[0] in 'aeio' else 'a'} {name}{where}?"


def shapes(scene: Scene) -> list[Thing]:
    return [thing for thing in scene.objects if thing.kind in SHAPES]


def named(scene: Scene) -> list[tuple[str, Thing]]:
    """Things with a name that no other thing bears: "star", or "red star" if there are more stars."""
    kinds = Counter(thing.kind for thing in scene.objects)
    pairs = Counter((thing.kind, thing.colour) for thing in scene.objects)
    names = []
    for thing in scene.objects:
        if kinds[thing.kind] == 1:
            names.append((thing.kind, thing))
        elif thing.colour and pairs[thing.kind, thing.colour] == 1:
            names.append((f"{thing.colour} {thing.kind}", thing))
    return names


def name_kind(name: str) -> str:
    """The kind in "red circles"."""
    plural = name.split()[-1]
    return next(kind for kind in PLURALS if PLURALS[kind] == plural)


def side(name: str, thing: Thing, random: Generator) -> Question | None:
    """Left or right half, top or bottom half; nothing is asked about the middle."""
    upright = random.random() < 0.5
    off = thing.centre[upright] - SIDE / 2
    if abs(off) < 30:
        return None
    if upright:
        return Question(
            "spatial", f"is the {name} at the top or at the bottom?", "top" if off < 0 else "bottom"
        )
    return Question("spatial", f"is the {name} on the left or on the right?", "left" if off < 0 else "right")


def offset(thing: Thing, there: Thing, direction: str) -> float:
    """How far `there` is from `thing` in this direction, between the centres."""
    across, down = (b - a for a, b in zip(thing.centre, there.centre, strict=True))
    return {"left": -across, "right": across, "above": -down, "below": down}[direction]


def where(thing: Thing, there: Thing) -> str | None:
    """The direction of `thing` seen from `there`, or None if it is diagonal."""
    across, down = (a - b for a, b in zip(thing.centre, there.centre, strict=True))
    if max(abs(across), abs(down)) < 1.6 * min(abs(across), abs(down)):
        return None
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


FAMILIES: dict[str, Callable[[Scene, Generator], Question | None]] = {
    "attribute": attribute,
    "existence": existence,
    "counting": counting,
    "spatial": spatial,
    "multiple choice": multiple_choice,
    "reading": reading,
}
