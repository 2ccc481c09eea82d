"""Six mini-benchmarks on held-out scenes, each asked and scored as a public benchmark, and a set of clips.

Questions come scene by scene, so that a picture is encoded once for all that is asked about it. Yes and no
are balanced, right letters are spread evenly, and negatives are chosen as POPE does.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from prumerge.tiny import clips
from prumerge.tiny.questions import (
    NUMBERS,
    PLURALS,
    attribute,
    coloured_shapes,
    is_there,
    pick_other,
    positions,
    reading,
    shapes,
)
from prumerge.tiny.scenes import COLOURS, HELD_OUT, PICTOGRAMS, SHAPES, UNSEEN, WORDS, Scene, pick, scene

FIRST = HELD_OUT.start + 850_000  # scenes that no other part of the project looks at
WHOLE = 24  # so many questions hold whole pairs and rotations, and splits and answers evenly


@dataclass(frozen=True)
class Item:
    """One question to be asked and scored."""

    benchmark: str
    id: str
    picture: int
    """The seed of its scene or clip."""
    question: str
    gold: str
    split: str = ""
    """POPE's kind of negatives, MME's subtask."""
    group: str = ""
    """Items that count only together: an MME pair, the rotations of one choice."""
    options: int = 0
    """Lettered choices, if any."""


def pictures(count: int, names: tuple[str, ...], unseen: bool = False) -> Iterator[tuple[Scene, list[Item]]]:
    """Scenes with what is asked about them, until each benchmark has `count` items.

    `unseen` takes scenes with a font and with coloured shapes that training never showed.
    """
    asked = dict.fromkeys(names, 0)
    seed = UNSEEN.start if unseen else FIRST
    while min(asked.values()) < count:
        found, items = drawn(seed), []
        for name in names:
            if asked[name] < count:
                random = np.random.default_rng((seed, list(BENCHMARKS).index(name)))
                new = BENCHMARKS[name](found, asked[name], random)
                items += new[: count - asked[name]]
                asked[name] += len(new[: count - asked[name]])
        if items:
            yield found, items
        seed += 1


@lru_cache(maxsize=64)  # several tasks ask about the same
def drawn(seed: int) -> Scene:
    """The scene of this seed."""
    return scene(seed)


def video(count: int, unseen: bool = False) -> Iterator[tuple[clips.Clip, list[Item]]]:
    """Clips of eight frames: what moves, where to, and what colour or shape something has."""
    kinds = list(clips.FAMILIES.items())
    number, seed = 0, UNSEEN.start if unseen else FIRST
    while number < count:
        drawn = clips.clip(seed)
        items: list[Item] = []
        random = np.random.default_rng((seed, 8))
        for split, ask in kinds:
            question = ask(drawn, random)
            if question and number + len(items) < count:
                name = f"video-{number + len(items):04}"
                items.append(Item("video", name, seed, question.text, question.answer, split=split))
        number += len(items)
        yield drawn, items
        seed += 1


def vqa(drawn: Scene, number: int, random: Generator) -> list[Item]:
    """The colour or the shape of something: free text, as VQAv2."""
    question = attribute(drawn, random)
    return [_item("attribute", drawn, number, question.text, question.answer)] if question else []


def textvqa(drawn: Scene, number: int, random: Generator) -> list[Item]:
    """The word on the sign: free text, as TextVQA, without OCR tokens in the prompt."""
    question = reading(drawn, random)
    return [_item("reading", drawn, number, question.text, question.answer)] if question else []


def scienceqa(drawn: Scene, number: int, random: Generator) -> list[Item]:
    """One of four letters, as ScienceQA; the right one goes round."""
    choice = _choice(drawn, random)
    if choice is None:
        return []
    text, right, wrong = choice
    return [_lettered("choice", drawn, number, text, right, wrong, number % 4)]


def mmbench(drawn: Scene, number: int, random: Generator) -> list[Item]:
    """The same choice four times with its options moved round, as MMBench: all four must be right."""
    choice = _choice(drawn, random)
    if choice is None:
        return []
    text, right, wrong = choice
    return [_lettered("circular", drawn, number + turn, text, right, wrong, turn) for turn in range(4)]


def pope(drawn: Scene, number: int, random: Generator) -> list[Item]:
    """Is it there? Half yes; absent things are random, frequent ones, or near misses, as POPE."""
    split = ("random", "popular", "adversarial")[number % 3]
    wanted = "yes" if number // 3 % 2 == 0 else "no"
    present = {thing.kind for thing in drawn.objects}
    if split == "adversarial":
        there = {(thing.colour, thing.kind) for thing in shapes(drawn)}
        kinds = {kind for _, kind in there}
        near = [pair for pair in coloured_shapes(drawn) if pair[1] in kinds]
        pairs = sorted(there) if wanted == "yes" else [pair for pair in near if pair not in there]
        names = [f"{colour} {kind}" for colour, kind in pairs]
    else:
        frequent = [*SHAPES, "sign"]
        asked = frequent if split == "popular" else [*SHAPES, *PICTOGRAMS, "sign"]
        names = [kind for kind in asked if (kind in present) == (wanted == "yes")]
    if not names:
        return []
    return [_item("existence", drawn, number, is_there(pick(names, random)), wanted, split=split)]


def mme(drawn: Scene, number: int, random: Generator) -> list[Item]:
    """Two questions on one picture, one yes and one no, as MME."""
    subtask = ("existence", "count", "position", "colour")[number // 2 % 4]
    present = sorted({thing.kind for thing in drawn.objects})
    kinds = Counter(thing.kind for thing in drawn.objects)
    single = [thing for thing in shapes(drawn) if kinds[thing.kind] == 1]
    several = sorted(kind for kind in kinds if 2 <= kinds[kind] < len(NUMBERS))
    if subtask == "existence" and present:
        absent = [kind for kind in [*SHAPES, *PICTOGRAMS, "sign"] if kind not in present]
        pair = is_there(pick(present, random)), is_there(pick(absent, random))
    elif subtask == "count" and several:
        kind = pick(several, random)
        numbers = kinds[kind], pick_other(kinds[kind], random)
        right, wrong = (f"are there {NUMBERS[number]} {PLURALS[kind]}?" for number in numbers)
        pair = right, wrong
    elif subtask == "position" and (asked := positions(drawn, random)):
        pair = asked
    elif subtask == "colour" and single:
        thing = single[random.integers(len(single))]
        others = [colour for colour, kind in coloured_shapes(drawn) if kind == thing.kind]
        others.remove(str(thing.colour))
        pair = is_there(f"{thing.colour} {thing.kind}"), is_there(f"{pick(others, random)} {thing.kind}")
    else:
        return []
    return [
        _item("perception", drawn, number + turn, question, gold, split=subtask, group=str(drawn.seed))
        for turn, (question, gold) in enumerate(zip(pair, ("yes", "no"), strict=True))
    ]


BENCHMARKS = {
    "attribute": vqa,
    "choice": scienceqa,
    "reading": textvqa,
    "existence": pope,
    "perception": mme,
    "circular": mmbench,
}


def _item(
    benchmark: str, drawn: Scene, number: int, question: str, gold: str, split: str = "", group: str = ""
) -> Item:
    return Item(benchmark, f"{benchmark}-{number:04}", drawn.seed, question, gold, split, group)


def _choice(drawn: Scene, random: Generator) -> tuple[str, str, list[str]] | None:
    """A question with its answer and three wrong ones."""
    kinds = Counter(thing.kind for thing in drawn.objects)
    coloured = [thing for thing in drawn.objects if thing.colour and kinds[thing.kind] == 1]
    about = random.random()
    if about < 0.25 and drawn.sign:
        text, right, names = "what does the sign say?", str(drawn.sign.text), WORDS
    elif about < 0.5 and coloured:
        thing = coloured[random.integers(len(coloured))]
        text, right, names = f"what colour is the {thing.kind}?", str(thing.colour), list(COLOURS)
    elif kinds:
        text, right = "which is in the picture?", pick(sorted(kinds), random)
        names = [kind for kind in [*SHAPES, *PICTOGRAMS, "sign"] if kind not in kinds]
    else:
        return None
    wrong = [name for name in names if name != right]
    return text, right, [str(name) for name in random.choice(wrong, 3, replace=False)]


def _lettered(
    benchmark: str, drawn: Scene, number: int, text: str, right: str, wrong: list[str], place: int
) -> Item:
    options = np.roll([right, *wrong], place).tolist()
    listed = " ".join(f"{letter}: {option}" for letter, option in zip("abcd", options, strict=True))
    group = f"{drawn.seed}" if benchmark == "circular" else ""
    return Item(
        benchmark,
        f"{benchmark}-{number:04}",
        drawn.seed,
        f"{text} {listed}",
        "ABCD"[place],
        group=group,
        options=4,
    )
