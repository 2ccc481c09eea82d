"""POPE: is it in the picture? Absent things are random, frequent, or go with what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from prumerge.errors import PrumergeError, short
from prumerge.evaluate.scoring import accuracy, f1, yes_or_no
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader
from prumerge.evaluate.tasks._prompts import SHORT
from prumerge.evaluate.tasks._rows import File, Row, json_lines, parquet, tsv
from prumerge.evaluate.tasks._task import Question, Scored, Task

SPLITS = ("random", "popular", "adversarial")
LABELS = "github.com/AoiDragon/POPE, output/coco"
LLAVA = "llava_pope_test.jsonl"


def labels(files: Sequence[Path]) -> list[Row]:
    """POPE's own files of questions with labels, one for each split, beside LLaVA's question file if it is
    there. Labels belong to the picture and the thing that they were given for, never to a place in a file."""
    folder = files[0].parent
    home = folder.parent if folder.name == "coco" else folder
    pictures = beside(home, ["val2014", "images"], "http://images.cocodataset.org/zips/val2014.zip")
    rows = []
    for split in SPLITS:
        of_split = json_lines(beside(folder, [f"coco_pope_{split}.json"], LABELS))
        if (home / LLAVA).is_file():
            _check_version(home / LLAVA, split, of_split)
        rows += [
            Row(row.where, {**row.values, "category": split}, File(pictures / row.text("image")))
            for row in of_split
        ]
    return rows


def _check_version(path: Path, split: str, rows: Sequence[Row]) -> None:
    """Raise PrumergeError unless LLaVA's file asks about the same things as the labels of a split."""
    asked = {_about(row) for row in json_lines(path) if row.text("category") == split}
    labelled = {_about(row) for row in rows}
    if asked != labelled:
        raise PrumergeError(
            f"coco_pope_{split}.json has labels of {len(labelled)} questions and {LLAVA} asks {len(asked)}, "
            f"{len(asked & labelled)} of them the same: they are of different versions of POPE; take both "
            "from one, as LLaVA's docs/Evaluation.md says, or leave LLaVA's file out"
        )


def _about(row: Row) -> tuple[str, str]:
    """Which picture, and what is looked for in it."""
    text = row.text("question", "text")
    found = re.match(r"Is there (?:an? )?(.+?) in the im", text)  # some versions misspell image
    return Path(row.text("image_source", "image", "image_path", "index")).stem, found[1] if found else text


def questions(rows: Sequence[Row]) -> Iterator[Asked]:
    """Rows may belong to several splits, separated by commas."""
    found: set[str] = set()
    known: dict[tuple[str, str], str] = {}
    for row in rows:
        picture, thing = _about(row)
        label = row.text("answer", "label").lower()
        if label not in ("yes", "no") or known.setdefault((picture, thing), label) != label:
            raise PrumergeError(
                f"{row.where} says {short(label)!r} to {short(thing)} in {picture}, where "
                + (f"another row says {known[picture, thing]}" if label in ("yes", "no") else "yes or no is")
                + f"; get the labels again from {LABELS}"
            )
        text = row.text("question", "text").strip() + SHORT
        for split in map(str.strip, row.text("category").split(",")):
            found.add(split)
            name = f"{split}/{picture}/{thing}"
            yield row.picture(), Question("pope", name, picture, text, (label,), split=split)
    if found != set(SPLITS):
        raise PrumergeError(
            f"POPE has the splits {', '.join(SPLITS)}; here there are: {', '.join(sorted(found))}; get all "
            "three"
        )


def score(question: Question, prediction: str) -> float:
    return float(yes_or_no(prediction) == question.gold[0])


def by_split(records: Sequence[Scored]) -> dict[str, dict[str, float]]:
    """Accuracy, precision, recall, F1 and share of yes, in percent, of each split that was asked."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for record in records:
        rows.setdefault(record.split, []).append((yes_or_no(record.prediction), record.gold[0]))
    return {split: f1(rows[split]) for split in SPLITS if split in rows}


def summary(records: Sequence[Scored]) -> float:
    values = by_split(records).values()
    return sum(one["f1"] for one in values) / len(values)


def details(records: Sequence[Scored]) -> dict[str, float]:
    found = {f"{split} {name}": one for split, of in by_split(records).items() for name, one in of.items()}
    return {"accuracy": accuracy(record.score for record in records), **found}


TASK = Task(
    mirrors="POPE, https://arxiv.org/abs/2305.10355, as in LLaVA-1.5",
    measure="mean F1 of 3 splits, %",
    read=reader(
        "pope",
        (
            Layout(("coco/coco_pope_*.json", "coco_pope_*.json"), labels, LABELS),
            Layout(("data/test-*.parquet", "test-*.parquet"), parquet, "lmms-lab/POPE of Hugging Face"),
            Layout(("POPE.tsv",), tsv, "VLMEvalKit"),
        ),
        questions,
    ),
    score=score,
    summary=summary,
    details=details,
    data="LLaVA's eval/pope with coco and val2014, lmms-lab/POPE, or VLMEvalKit's POPE.tsv",
)
