"""Ask about hard scenes: counting to nine, near misses, three objects, cells of a grid, one sign of two.

Each family has forms that take turns. A form returns None where the scene leaves nothing to ask in it.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator

from prumerge.tiny.hard import MOST, cell
from prumerge.tiny.questions import (
    LETTERS,
    PLURALS,
    Question,
    attribute,
    coloured_shapes,
    is_there,
    name_kind,
    named,
    shapes,
)
from prumerge.tiny.scenes import PICTOGRAMS, SHAPES, Scene, Thing, pick

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# how often each number of things is asked for where it is there, so that all are about equally frequent
COUNT_WEIGHTS = np.array([0.1, 0.1, 0.25, 0.5, 0.8, 1.1, 1.6, 2.2, 3.0, 4.0])
NEAR = 0.7  # how many questions about what is not there name a shape or a colour that is
CLEAR = 40  # pixels, three patches, by which something is left of, or above, something else
NEARER = 1.8  # times as near, at least
TRIES = 12


def how_many(scene: Scene, random: Generator) -> Question | None:
    """How many of a kind, or of a kind in a colour: zero to nine."""
    counts = {name: count for name, count in counted(scene).items() if count <= MOST}
    there = sorted(set(counts.values()))
    weights = COUNT_WEIGHTS[there]
    count = there[random.choice(len(there), p=weights / weights.sum())]
    names = [name for name in counts if counts[name] == count]
    kinds = Counter(thing.kind for thing in scene.objects)
    near = [name for name in names if kinds[name_kind(name)] > count]
    name = pick(near if near and random.random() < 0.5 else names, random)
    text = pick([f"how many {name} are there?", f"how many {name} are in the picture?"], random)
    return Question("counting", text, NUMBERS[count])


def so_many(scene: Scene, random: Generator) -> Question | None:
    """Are there so many? As often yes as no; wrong numbers are off by one to three."""
    counts = {name: count for name, count in counted(scene).items() if 2 <= count <= MOST}
    if not counts:
        return None
    name, yes = pick(list(counts), random), random.random() < 0.5
    off = [n for n in range(2, MOST + 1) if 1 <= abs(n - counts[name]) <= 3]
    number = counts[name] if yes else off[random.integers(len(off))]
    return Question("counting", f"are there {NUMBERS[number]} {name}?", "yes" if yes else "no")


def counted(scene: Scene) -> dict[str, int]:
    """How many there are of each kind, and of each kind in each colour; mostly what is there."""
    kinds = Counter(thing.kind for thing in scene.objects)
    pairs = Counter((thing.colour, thing.kind) for thing in shapes(scene))
    counts = {PLURALS[kind]: kinds[kind] for kind in [*SHAPES, *PICTOGRAMS]}
    pairs_there = [pair for pair in coloured_shapes(scene) if kinds[pair[1]]]
    return counts | {f"{colour} {PLURALS[kind]}": pairs[colour, kind] for colour, kind in pairs_there}


def existence(scene: Scene, random: Generator) -> Question | None:
    """Is there a ...? As often yes as no; most misses are a colour and a shape that are there, but apart."""
    yes = random.random() < 0.5
    name = present(scene, random) if yes else absent(scene, random, 1)[0]
    text = pick([is_there(name), is_there(name, " in the picture")], random)
    return Question("existence", text, "yes" if yes else "no")


def choice(scene: Scene, random: Generator) -> Question | None:
    """Which of four is in the picture?"""
    right = present(scene, random)
    place, options = int(random.integers(4)), absent(scene, random, 3)
    options.insert(place, right)
    listed = " ".join(f"{letter}: {option}" for letter, option in zip(LETTERS, options, strict=True))
    return Question("choice", f"which is in the picture? {listed}", LETTERS[place])


def present(scene: Scene, random: Generator) -> str:
    """The name of something in the picture, mostly of a coloured shape."""
    coloured = sorted({f"{thing.colour} {thing.kind}" for thing in shapes(scene)})
    kinds = sorted({thing.kind for thing in scene.objects if thing.kind in PLURALS})
    return pick(coloured if coloured and random.random() < NEAR else kinds, random)


def absent(scene: Scene, random: Generator, count: int) -> list[str]:
    """So many names of what is not in the picture, each mostly a near miss."""
    there = {(thing.colour, thing.kind) for thing in shapes(scene)}
    colours, kinds = {colour for colour, _ in there}, {thing.kind for thing in scene.objects}
    missing = [pair for pair in coloured_shapes(scene) if pair not in there]
    apart = [f"{colour} {kind}" for colour, kind in missing if colour in colours and kind in kinds]
    others = [kind for kind in [*SHAPES, *PICTOGRAMS] if kind not in kinds]
    others += [f"{colour} {kind}" for colour, kind in missing if kind in kinds]
    found: list[str] = []
    while len(found) < count:
        names = [name for name in apart if name not in found] if random.random() < NEAR else []
        found.append(pick(names or [name for name in others if name not in found], random))
    return found


def is_between(scene: Scene, random: Generator) -> Question | None:
    """Is one between two others? It is near their middle, or far from it."""
    yes = random.random() < 0.5
    for _ in range(TRIES):
        three = trio(scene, random)
        if three is None:
            return None
        (name, thing), (first, one), (second, other) = three
        ends = np.array([one.centre, other.centre])
        apart = np.hypot(*(ends[1] - ends[0]))
        off = np.hypot(*(np.array(thing.centre) - ends.mean(0)))
        if apart >= 70 and (off < 0.3 * apart if yes else off > 0.8 * apart):
            text = f"is the {name} between the {first} and the {second}?"
            return Question("relation", text, "yes" if yes else "no")
    return None


def nearer(scene: Scene, random: Generator) -> Question | None:
    """To which of two is one nearer?"""
    three = trio(scene, random)
    if three is None:
        return None
    (name, thing), (first, one), (second, other) = three
    ways = [np.hypot(*(np.array(thing.centre) - there.centre)) for there in (one, other)]
    if max(ways) < NEARER * min(ways):
        return None
    text = f"is the {name} nearer to the {first} or to the {second}?"
    return Question("relation", text, first if ways[0] < ways[1] else second)


def is_both(scene: Scene, random: Generator) -> Question | None:
    """Is one left of another and above a third? If not, then one half of it is wrong."""
    three = trio(scene, random)
    if three is None:
        return None
    (name, thing), (first, one), (second, other) = three
    across, down = thing.centre[0] - one.centre[0], thing.centre[1] - other.centre[1]
    if min(abs(across), abs(down)) < CLEAR:
        return None
    wrong = int(random.integers(2)) if random.random() < 0.5 else 2
    left = (across < 0) != (wrong == 0)
    above = (down < 0) != (wrong == 1)
    side, height = "left of" if left else "right of", "above" if above else "below"
    text = f"is the {name} {side} the {first} and {height} the {second}?"
    return Question("relation", text, "yes" if wrong == 2 else "no")


def what_both(scene: Scene, random: Generator) -> Question | None:
    """What is left of one and above another? Only one thing is, and no other is near to it."""
    three = trio(scene, random)
    if three is None:
        return None
    (name, thing), (first, one), (second, other) = three
    toward = random.choice([-1, 1], 2)

    def margin(thing: Thing) -> float:
        """By how many pixels it lies there; below 0 if it does not."""
        across, down = thing.centre[0] - one.centre[0], thing.centre[1] - other.centre[1]
        return float(min(toward[0] * across, toward[1] * down))

    others = [there for there in scene.objects if there not in (thing, one, other)]
    if margin(thing) < CLEAR or any(margin(there) > -CLEAR / 2 for there in others):
        return None
    side, height = "left of" if toward[0] < 0 else "right of", "above" if toward[1] < 0 else "below"
    return Question("relation", f"what is {side} the {first} and {height} the {second}?", name)


def trio(scene: Scene, random: Generator) -> list[tuple[str, Thing]] | None:
    """Three things with names of their own, outside of grids."""
    unique = named(scene)
    if scene.regime == "grid" or len(unique) < 3:
        return None
    return [unique[place] for place in random.choice(len(unique), 3, replace=False)]


def in_cell(scene: Scene, random: Generator) -> Question | None:
    """What is in this row and this column?"""
    if scene.regime != "grid":
        return None
    thing = scene.objects[random.integers(len(scene.objects))]
    return Question("grid", f"what is in {placed(thing)}?", thing.kind)


def colour_in_cell(scene: Scene, random: Generator) -> Question | None:
    """Which colour has the shape in this row and this column?"""
    there = shapes(scene) if scene.regime == "grid" else []
    if not there:
        return None
    thing = there[random.integers(len(there))]
    return Question("grid", f"what colour is the shape in {placed(thing)}?", str(thing.colour))


def in_row(scene: Scene, random: Generator) -> Question | None:
    """Is something in this row, or column, that is in the picture in any case?"""
    if scene.regime != "grid":
        return None
    yes, upright = random.random() < 0.5, int(random.integers(2))
    kinds = sorted({thing.kind for thing in scene.objects})
    number = int(random.integers(1 + max(cell(thing)[upright] for thing in scene.objects)))
    here = {thing.kind for thing in scene.objects if cell(thing)[upright] == number}
    names = [kind for kind in kinds if (kind in here) == yes]
    if not names:
        return None
    line = f" in {('row', 'column')[upright]} {NUMBERS[number + 1]}"
    return Question("grid", is_there(pick(names, random), line), "yes" if yes else "no")


def placed(thing: Thing) -> str:
    row, column = cell(thing)
    return f"row {NUMBERS[row + 1]} and column {NUMBERS[column + 1]}"


def reading(scene: Scene, random: Generator) -> Question | None:
    """What one of two signs says, which its colour or its place tells."""
    boards = sorted((thing for thing in scene.objects if thing.kind == "sign"), key=lambda one: one.centre[1])
    if len(boards) < 2:
        return None
    which = int(random.integers(2))
    apart = boards[1].centre[1] - boards[0].centre[1] > CLEAR
    names = [str(boards[which].colour), *([("top", "bottom")[which]] if apart else [])]
    name = pick(names, random)
    text = pick([f"what does the {name} sign say?", f"what is written on the {name} sign?"], random)
    return Question("reading", text, str(boards[which].text))


Form = Callable[[Scene, Generator], Question | None]
FAMILIES: dict[str, tuple[Form, ...]] = {
    "counting": (how_many, so_many, how_many),
    "attribute": (attribute,),
    "existence": (existence,),
    "relation": (is_between, nearer, is_both, what_both),
    "grid": (in_cell, colour_in_cell, in_row),
    "reading": (reading,),
    "choice": (choice,),
}
OFTEN = {"relation": 3.0, "counting": 2.0, "grid": 2.0}  # tried in training, the others once


def hard_questions(scene: Scene, seed: int, count: int) -> list[Question]:
    """Up to `count` different questions about one scene, of families and forms at random."""
    random = np.random.default_rng((scene.seed, seed))
    forms, often = list(FAMILIES.values()), np.array([OFTEN.get(name, 1.0) for name in FAMILIES])
    found: dict[str, Question] = {}
    for number in random.choice(len(forms), 3 * count, p=often / often.sum()):
        family = forms[number]
        question = family[random.integers(len(family))](scene, random)
        if question:
            found[question.text] = question
        if len(found) == count:
            break
    return list(found.values())


def asked(scenes: Iterator[Scene], count: int) -> Iterator[tuple[Scene, list[tuple[int, Question]]]]:
    """Scenes with what is asked about each, and its number in its family; `count` questions in all.

    Every family has as many. It asks about a scene once at most; its forms take turns, and of a few questions
    in a form the one is asked whose answer was right least often so far.
    """
    left = {family: count // len(FAMILIES) for family in FAMILIES}
    for family in list(FAMILIES)[: count % len(FAMILIES)]:
        left[family] += 1
    done: Counter[str] = Counter()
    answers: Counter[tuple[Form, str]] = Counter()
    while any(done[family] < left[family] for family in FAMILIES):
        scene, found = next(scenes), []
        for place, (family, forms) in enumerate(FAMILIES.items()):
            if done[family] == left[family]:
                continue
            form, random = forms[done[family] % len(forms)], np.random.default_rng((scene.seed, 1, place))
            tried = [question for _ in range(TRIES) if (question := form(scene, random))]
            if tried:
                best = min(tried, key=lambda question: answers[form, question.answer])
                answers[form, best.answer] += 1
                found.append((done[family], best))
                done[family] += 1
        if found:
            yield scene, found
