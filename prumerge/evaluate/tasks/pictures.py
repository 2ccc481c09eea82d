"""Your pictures, no right answers: does the model say the same with fewer tokens?

Right is what the untouched model answers. Built-in questions are of three kinds, from a word to a sentence,
because an answer of many words gives more places to differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from prumerge.errors import PrumergeError, short
from prumerge.evaluate.scoring import accuracy, exact
from prumerge.evaluate.tasks._prompts import SHORT
from prumerge.evaluate.tasks._scores import mean_score
from prumerge.evaluate.tasks._task import Question, Scored, Shown, Source, Task
from prumerge.loading.images import open_image
from prumerge.loading.paths import existing, shown

BUILT_IN = (
    ("a word", f"What is the main thing in this picture?{SHORT}"),
    ("a word", f"Which colour covers most of this picture?{SHORT}"),
    ("a word", f"How many people are in this picture?{SHORT}"),
    ("a word", f"What is at the left edge of this picture?{SHORT}"),
    ("yes or no", f"Is there any writing in this picture?{SHORT}"),
    ("yes or no", f"Was this picture taken outdoors?{SHORT}"),
    ("a sentence", "Describe this picture in one sentence."),
)
"""Kinds of answers, and questions."""
OWN = "your questions"
"""Their kind, in `Question.split`."""
MOST = 100
"""Pictures where no number is given: enough to tell 95 % from 90 %."""
QUESTIONS = "questions.txt"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic")


def read(source: Source) -> Iterator[tuple[Shown, list[Question]]]:
    """Pictures of a folder and of the folders in it, as many as are asked for, spread over all of them."""
    assert source.data is not None
    folder = existing(source.data, "folder of pictures")
    found = _pictures(folder)
    asked = _questions(folder, source)
    wanted = _most(source.options.get("pictures", str(MOST)))
    if source.count is not None:
        wanted = min(wanted or len(found), -(-source.count // len(asked)))
    left = source.count if source.count is not None else len(found) * len(asked)
    for path in _spread(found, wanted):
        name = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
        some = asked[:left]
        left -= len(some)
        yield (
            partial(_opened, path),
            [
                Question("pictures", f"{name} {number}", name, text, (), split=kind)
                for number, (kind, text) in enumerate(some)
            ],
        )


def _pictures(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = [path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise PrumergeError(
            f"{shown(place)} holds no pictures ({', '.join(SUFFIXES)}); name another by --data"
        )
    return sorted(found)


def _questions(folder: Path, source: Source) -> list[tuple[str, str]]:
    """Kind and text of what is asked about each picture: the user's own, or those that are built in."""
    given = source.options.get("questions")
    file = Path(given) if given is not None else folder / QUESTIONS
    if given is None and not file.is_file():
        return list(BUILT_IN)
    try:
        lines = existing(file, "file of questions").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PrumergeError(f"{shown(file)} cannot be read as text ({error}); name another") from None
    asked = [line.strip() for line in lines if line.strip()]
    if not asked:
        raise PrumergeError(f"{shown(file)} holds no questions; write one on each line")
    return [(OWN, text) for text in dict.fromkeys(asked)]


def _most(text: str) -> int | None:
    """How many pictures are asked about; None for all."""
    if text == "all":
        return None
    if not text.isdecimal() or not int(text):
        raise PrumergeError(f"pictures is a whole number or all, not {short(repr(text), 30)}")
    return int(text)


def _spread(found: Sequence[Path], count: int | None) -> list[Path]:
    """`count` of them at most, at even distances: folders are often sorted by what they show."""
    if count is None or count >= len(found):
        return list(found)
    return [found[place * len(found) // count] for place in range(count)]


def _opened(path: Path) -> list[Image.Image]:
    return [open_image(path)]


def score(question: Question, prediction: str) -> float:
    """1 for the untouched model's answer, in VQA's normal form."""
    return exact(prediction, question.gold[0])


def details(records: Sequence[Scored]) -> dict[str, float]:
    """The same for each kind of answer."""
    kinds = dict.fromkeys(record.split for record in records)
    return {kind: accuracy(record.score for record in records if record.split == kind) for kind in kinds}


TASK = Task(
    mirrors="your pictures",
    measure="% answered as by the untouched model",
    read=read,
    score=score,
    summary=mean_score,
    details=details,
    data="a folder of pictures, and if you like questions.txt in it, a question on each line",
    options={
        "pictures": f"how many of the folder's pictures, or all; {MOST} where nothing is said",
        "questions": "a text file with a question on each line, in place of those that are built in",
    },
    max_new_tokens=24,
)
