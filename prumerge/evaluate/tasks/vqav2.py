"""VQAv2 (val, whose answers are public): free questions, each answered by ten people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prumerge.errors import PrumergeError
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader, without_prompt
from prumerge.evaluate.tasks._prompts import SHORT
from prumerge.evaluate.tasks._rows import File, Row, json_lines, parquet, read_json, rows_of
from prumerge.evaluate.tasks._scores import mean_score, vqa_score
from prumerge.evaluate.tasks._task import Question, Task

PAGE = "https://visualqa.org/download.html"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"


def official(files: Sequence[Path]) -> list[Row]:
    """VQA's own questions and annotations."""
    return _annotated(files[0].parent, rows_of(_part(files[0], "questions"), files[0]))


def llava(files: Sequence[Path]) -> list[Row]:
    """A question file as LLaVA writes them, with VQA's annotations."""
    return _annotated(files[0].parent, json_lines(files[0]))


def _annotated(folder: Path, rows: Sequence[Row]) -> list[Row]:
    path = beside(folder, [ANNOTATIONS], PAGE)
    answers = {str(one.get("question_id")): one.get("answers") for one in _part(path, "annotations")}
    if unanswered := [row for row in rows if row.text("question_id") not in answers]:
        raise PrumergeError(
            f"{len(unanswered)} of {len(rows)} questions have no annotations in {path.name}, the first is "
            f"{unanswered[0].text('question_id')}; get both files of the same split from {PAGE}"
        )
    pictures = beside(folder, ["val2014", "images"], "http://images.cocodataset.org/zips/val2014.zip")
    return [
        Row(
            row.where,
            {**row.values, "answers": answers[row.text("question_id")], "image_id": str(_picture(row))},
            File(pictures / f"COCO_val2014_{_picture(row):012}.jpg"),
        )
        for row in rows
    ]


def _picture(row: Row) -> int:
    """COCO's number of a picture, which is in its name."""
    number = Path(row.text("image_id", "image")).stem.rpartition("_")[2]
    if not number.isdecimal():
        raise PrumergeError(f"{row.where} shows {number}, which is no picture of COCO's; get a whole copy")
    return int(number)


def _part(path: Path, name: str) -> list[dict[str, Any]]:
    """The list of this name in a file of VQA's."""
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get(name), list):
        raise PrumergeError(f"{path.name} has no {name}; get it from {PAGE}")
    return list(value[name])


def questions(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        golds = row.several("answers")
        if len(golds) != 10:
            raise PrumergeError(f"{row.where} has {len(golds)} answers and not ten; get a whole copy")
        text = without_prompt(row.text("question", "text")) + SHORT
        name, picture = row.text("question_id"), str(_picture(row))
        yield row.picture(), Question("vqav2", name, picture, text, golds)


TASK = Task(
    mirrors="VQAv2 (val), https://arxiv.org/abs/1612.00837, asked as in LLaVA-1.5",
    measure="% of agreement with ten annotators",
    read=reader(
        "vqav2",
        (
            Layout(("llava_vqav2_mscoco_val2014*.jsonl",), llava, "LLaVA's form"),
            Layout(("v2_OpenEnded_mscoco_val2014_questions.json",), official, PAGE),
            Layout(
                ("data/validation-*.parquet", "validation-*.parquet"),
                parquet,
                "lmms-lab/VQAv2 of Hugging Face",
            ),
        ),
        questions,
    ),
    score=vqa_score,
    summary=mean_score,
    data="VQA's questions, annotations and val2014, or lmms-lab/VQAv2",
)
