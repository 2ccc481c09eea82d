"""DocVQA (val, whose answers are public): questions about scanned pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prumerge.evaluate.scoring import anls
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader
from prumerge.evaluate.tasks._prompts import SHORT
from prumerge.evaluate.tasks._rows import File, Row, parquet, read_json, rows_of, tsv
from prumerge.evaluate.tasks._scores import mean_score
from prumerge.evaluate.tasks._task import Question, Task

PAGE = "https://www.docvqa.org/datasets/docvqa"


def official(files: Sequence[Path]) -> list[Row]:
    """DocVQA's own questions; `image` is relative to the folder, whatever its folder of pages is called."""
    path = files[0]
    value = read_json(path)
    rows = rows_of(value.get("data") if isinstance(value, dict) else None, path)
    folders = ["documents", "spdocvqa_images", "val/documents"]
    pages = beside(path.parent, folders, PAGE)
    return [Row(row.where, row.values, File(pages / Path(row.text("image")).name)) for row in rows]


def questions(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        document = row.optional("ucsf_document_id")
        name = row.text("questionId", "index")
        picture = f"{document}_{row.text('ucsf_document_page_no')}" if document else name
        text = row.text("question") + SHORT
        yield row.picture(), Question("docvqa", name, picture, text, row.several("answers", "answer"))


def score(question: Question, prediction: str) -> float:
    return anls(prediction, question.gold)


TASK = Task(
    mirrors="DocVQA (val), https://arxiv.org/abs/2007.00398, asked as in LLaVA-1.5",
    measure="ANLS, %",
    read=reader(
        "docvqa",
        (
            Layout(("val_v1.0_withQT.json", "val_v1.0.json"), official, PAGE),
            Layout(
                ("DocVQA/validation-*.parquet", "data/validation-*.parquet", "validation-*.parquet"),
                parquet,
                "lmms-lab/DocVQA of Hugging Face",
            ),
            Layout(("DocVQA_VAL.tsv",), tsv, "VLMEvalKit"),
        ),
        questions,
    ),
    score=score,
    summary=mean_score,
    data="DocVQA's val_v1.0_withQT.json and pages, lmms-lab/DocVQA, or VLMEvalKit's DocVQA_VAL.tsv",
    max_new_tokens=32,
)
