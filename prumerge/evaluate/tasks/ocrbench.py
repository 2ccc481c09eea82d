"""OCRBench: reading of ten kinds, from words to formulas, in five groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from prumerge.errors import PrumergeError, unknown
from prumerge.evaluate.scoring import accuracy, contains
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader
from prumerge.evaluate.tasks._rows import File, Row, parquet, read_json, rows_of, tsv
from prumerge.evaluate.tasks._scores import mean_score
from prumerge.evaluate.tasks._task import Question, Scored, Task

PAGE = "github.com/Yuliang-Liu/MultimodalOCR"
FORMULA = "Handwritten Mathematical Expression Recognition"
GROUPS = {
    **dict.fromkeys(
        (
            "Regular Text Recognition",
            "Irregular Text Recognition",
            "Artistic Text Recognition",
            "Handwriting Recognition",
            "Digit String Recognition",
            "Non-Semantic Text Recognition",
        ),
        "text recognition",
    ),
    "Scene Text-centric VQA": "scene text",
    "Doc-oriented VQA": "documents",
    "Key Information Extraction": "key information",
    FORMULA: "formulas",
}
"""The group of each kind of question."""


def official(files: Sequence[Path]) -> list[Row]:
    """OCRBench's own list, and its pictures."""
    pictures = beside(files[0].parent, ["OCRBench_Images", "images"], PAGE)
    rows = rows_of(read_json(files[0]), files[0])
    return [Row(row.where, row.values, File(pictures / row.text("image_path"))) for row in rows]


def questions(rows: Sequence[Row]) -> Iterator[Asked]:
    """Numbered in the order of the list, since not every copy has ids; asked as they are."""
    for number, row in enumerate(rows):
        kind = row.text("type", "question_type", "category")
        if kind not in GROUPS:
            raise PrumergeError(f"{row.where}: {unknown('kind of question', kind, tuple(GROUPS))}")
        name, golds = f"{number:04}", row.several("answers", "answer")
        text = row.text("question").strip()
        yield row.picture(), Question("ocrbench", name, name, text, golds, split=kind)


def score(question: Question, prediction: str) -> float:
    return contains(prediction, question.gold, formula=question.split == FORMULA)


def details(records: Sequence[Scored]) -> dict[str, float]:
    rows: dict[str, list[float]] = defaultdict(list)
    for record in records:
        rows[GROUPS[record.split]].append(record.score)
    return {name: accuracy(rows[name]) for name in dict.fromkeys(GROUPS.values()) if name in rows}


TASK = Task(
    mirrors="OCRBench, https://arxiv.org/abs/2305.07895",
    measure="% of answers that contain the text (its score of 1000, divided by ten)",
    read=reader(
        "ocrbench",
        (
            Layout(("OCRBench.json", "OCRBench/OCRBench.json", "FullTest.json"), official, PAGE),
            Layout(("data/test-*.parquet", "test-*.parquet"), parquet, "echo840/OCRBench of Hugging Face"),
            Layout(("OCRBench.tsv",), tsv, "VLMEvalKit"),
        ),
        questions,
    ),
    score=score,
    summary=mean_score,
    details=details,
    data="OCRBench's own list and pictures, echo840/OCRBench, or VLMEvalKit's OCRBench.tsv",
    max_new_tokens=128,
)
