"""What `real_llava.py` trains on and asks: easy-VQA, the stamps of Tux Paint, and drawn scenes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from real_tower import fitted

from prumerge.tiny.questions import questions
from prumerge.tiny.scenes import SHAPES, SIDE, Scene, Thing, scene
from prumerge.train.media import Picture
from prumerge.train.quick import FIRST
from prumerge.train.rows import Row

TURNS = 8
"""Questions about one picture in a row, at most."""
CHECKED = 100
"""Pictures of easy-VQA's train split that are looked at on the way and not trained on: the last ones."""
EASY, STAMPS = 3, 6
"""How often each picture of easy-VQA and each stamp is there, asked in another order or in other words."""
HELD = 6
"""Every so manieth caption of the stamps is held out, with all its pictures."""
STAMP = 224
"""Pixels of a stamp's longer side, and of the white square that it is in the middle of."""
DESCRIBE = (
    "Describe the picture.",
    "What do you see?",
    "Tell me what is shown.",
    "What is in this picture? Describe all of it.",
)
NAME = ("What is this?", "What does the picture show?", "What can be seen here?", "Name what you see.")


@dataclass(frozen=True)
class Asked:
    """A picture and what is said about it, questions and answers in turns."""

    name: str
    source: str | bytes
    turns: tuple[tuple[str, str], ...]

    def row(self) -> Row:
        """As `prumerge.train` reads it."""
        messages: list[dict[str, Any]] = []
        for number, (question, answer) in enumerate(self.turns):
            seen = [] if number else [{"type": "image"}]
            messages += [
                {"role": "user", "content": [*seen, {"type": "text", "text": question}]},
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ]
        return Row(self.name, tuple(messages), (Picture(self.source),))


# easy-VQA


def easy(split: str) -> dict[int, tuple[str, list[tuple[str, str]]]]:
    """The file, and all questions with their answers, of each picture of a split (`train` or `test`)."""
    import easy_vqa

    files = getattr(easy_vqa, f"get_{split}_image_paths")()
    found: dict[int, tuple[str, list[tuple[str, str]]]] = {}
    for question, answer, picture in zip(*getattr(easy_vqa, f"get_{split}_questions")(), strict=True):
        found.setdefault(picture, (files[picture], []))[1].append((question, answer))
    return found


def easy_rows(seed: int, count: int | None = None) -> list[Asked]:
    """The train split but its last `CHECKED` pictures, questions in an order drawn anew for each seed."""
    chance, pictures = np.random.default_rng((seed, 1)), sorted(easy("train").items())[:-CHECKED][:count]
    return [
        Asked(f"easy-VQA {number}", file, tuple(turns[at] for at in chance.permutation(len(turns))[:TURNS]))
        for number, (file, turns) in pictures
    ]


def single(split: str, pictures: Sequence[int], each: int, seed: int = 0) -> list[Asked]:
    """`each` questions about each of these pictures, one in a row; drawn by the seed."""
    known, found = easy(split), []
    for number in pictures:
        file, turns = known[number]
        chosen = np.random.default_rng((seed, number)).permutation(len(turns))[:each]
        found += [Asked(f"{split} {number}", file, (turns[at],)) for at in sorted(chosen)]
    return found


# stamps


def pack_stamps(home: Path, folder: Path) -> None:
    """Write each stamp below `home`, whole on white, as a small JPEG, and `captions.json` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    for path in sorted(home.rglob("*.png")):
        if path.stem.endswith(("_mirror", "_flip")):
            continue
        name = "-".join(path.relative_to(home).with_suffix(".jpg").parts)
        with Image.open(path) as picture:
            fitted(picture, STAMP).save(folder / name, quality=90)
        captions[name] = path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace").split("\n")[0]
    (folder / "captions.json").write_text(json.dumps(captions, indent=0, ensure_ascii=False))


def stamps(folder: Path, *, held: bool) -> list[tuple[str, str]]:
    """Files and captions of the stamps that are trained on, or (`held`) of one stamp for each other caption.

    Captions decide, so that no held-out one was read in training.
    """
    captions = json.loads((folder / "captions.json").read_text())
    kinds = list(dict.fromkeys(captions.values()))
    apart = {kinds[at] for at in np.random.default_rng(6).permutation(len(kinds))[::HELD]}
    own = [(str(folder / name), text) for name, text in captions.items() if (text in apart) == held]
    if held:
        return [(file, text) for text, file in {text: file for file, text in reversed(own)}.items()]
    return own


def stamp_rows(folder: Path, seed: int) -> list[Asked]:
    """Each stamp that is trained on, and what it is."""
    chance = np.random.default_rng((seed, 2))
    return [
        Asked(f"stamp {file}", file, ((NAME[chance.integers(len(NAME))], text),))
        for file, text in stamps(folder, held=False)
    ]


def choices(folder: Path, count: int | None = None) -> list[list[Asked]]:
    """For each held-out stamp its own caption, and those of three other held-out ones, in rows of their own;
    its own comes first."""
    own, found = stamps(folder, held=True)[:count], []
    for number, (file, text) in enumerate(own):
        others = [other for _, other in own if other != text]
        drawn = np.random.default_rng((7, number)).permutation(len(others))[:3]
        texts = [text, *(others[at] for at in drawn)]
        found.append([Asked(f"stamp {file}", file, ((NAME[0], each),)) for each in texts])
    return found


# drawn scenes


def scene_rows(seed: int, count: int, processes: int) -> list[Asked]:
    """`count` scenes that the embedded model never saw, each with a description and questions."""
    numbers = range(FIRST + 1_000_000 + 100_000 * seed, FIRST + 1_000_000 + 100_000 * seed + count)
    if processes < 2:
        return [drawn(number, seed) for number in numbers]
    with get_context("fork").Pool(processes) as pool:  # before anything touches a GPU
        return pool.map(partial(drawn, seed=seed), numbers, chunksize=64)


def drawn(number: int, seed: int) -> Asked:
    """One scene as a JPEG, described or asked about first, in the order of chance."""
    shown, chance, file = scene(number), np.random.default_rng((seed, number)), io.BytesIO()
    shown.image.save(file, "JPEG", quality=92)
    turns = [(one.text, one.answer) for one in questions(shown, seed, TURNS - 1)]
    turns.append((DESCRIBE[chance.integers(len(DESCRIBE))], described(shown)))
    order = chance.permutation(len(turns))
    return Asked(f"scene {number}", file.getvalue(), tuple(turns[at] for at in order))


def described(shown: Scene) -> str:
    """All that a scene shows, as a sentence, from top to bottom."""
    things = sorted(shown.objects, key=lambda thing: (thing.centre[1] // 112, thing.centre[0]))
    parts = [f"{_named(thing)} {_place(thing)}" for thing in things]
    ground = {"stripes": "a striped ground", "tiles": "a ground of tiles", "clouds": "a cloudy ground"}
    on = ground.get(shown.background, f"a {shown.background} ground")
    if not parts:
        return f"There is nothing on {on}."
    told = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"There is {told}, on {on}."


def _named(thing: Thing) -> str:
    if thing.text:
        return f'a {thing.colour} sign that says "{thing.text.upper()}"'
    words = f"{thing.colour} {thing.kind}" if thing.kind in SHAPES else thing.kind
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _place(thing: Thing) -> str:
    across, down = (min(2, int(3 * centre / SIDE)) for centre in thing.centre)
    upright, level = ("at the top", "", "at the bottom")[down], ("left", "", "right")[across]
    if not upright:
        return f"on the {level}" if level else "in the middle"
    return f"{upright} {level}".strip()


def everything(stamps_at: Path, scenes: int, processes: int) -> Iterator[Asked]:
    """All that is trained on, the scenes first, since they are drawn by processes that are forked."""
    yield from scene_rows(0, scenes, processes)
    for seed in range(EASY):
        yield from easy_rows(seed)
    for seed in range(STAMPS):
        yield from stamp_rows(stamps_at, seed)
