"""GQA (balanced test-dev): questions about how things in a scene are related, of one right answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prumerge.errors import PrumergeError
from prumerge.evaluate import scoring
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader, without_prompt
from prumerge.evaluate.tasks._prompts import SHORT
from prumerge.evaluate.tasks._rows import File, Row, json_lines, parquet, read_json, tsv
from prumerge.evaluate.tasks._scores import mean_score
from prumerge.evaluate.tasks._task import Question, Task

PAGE = "https://cs.stanford.edu/people/dorarad/gqa/download.html"
ANSWERS = "testdev_balanced_questions.json"


def official(files: Sequence[Path]) -> list[Row]:
    """GQA's own questions by their id."""
    asked = read_json(files[0])
    pictures = beside(files[0].parent, ["images", "../images"], PAGE)
    if not isinstance(asked, dict):
        raise PrumergeError(f"{files[0].name} holds no questions by their id; get it from {PAGE}")
    return [
        Row(f"{files[0].name}, {name}", {**one, "id": name}, File(pictures / f"{one.get('imageId')}.jpg"))
        for name, one in asked.items()
    ]


def llava(files: Sequence[Path]) -> list[Row]:
    """LLaVA's question file, with the answers of GQA's."""
    home = files[0].parent
    known = {row.text("id"): row for row in official([beside(home, [f"data/{ANSWERS}", ANSWERS], PAGE)])}
    rows = json_lines(files[0])
    if unknown := [row for row in rows if row.text("question_id") not in known]:
        raise PrumergeError(
            f"{len(unknown)} of {len(rows)} questions are not in {ANSWERS}, the first is "
            f"{unknown[0].text('question_id')}; get both of the same split, {ANSWERS} from {PAGE}"
        )
    return [known[row.text("question_id")] for row in rows]


def tables(files: Sequence[Path]) -> list[Row]:
    """Questions in one table, pictures in another."""
    home = files[0].parent.parent
    first = beside(home, ["testdev_balanced_images/testdev-*.parquet"], "lmms-lab/GQA of Hugging Face")
    pictures = {row.text("id"): row.show for row in parquet(sorted(first.parent.glob("testdev-*.parquet")))}
    return [Row(row.where, row.values, pictures.get(row.text("imageId"))) for row in parquet(files)]


def questions(rows: Sequence[Row]) -> Iterator[Asked]:
    for row in rows:
        text = without_prompt(row.text("question")) + SHORT
        name = row.text("id", "index")
        picture = row.text("imageId", "index")
        yield row.picture(), Question("gqa", name, picture, text, (row.text("answer"),))


def score(question: Question, prediction: str) -> float:
    return scoring.gqa(prediction, question.gold[0])


TASK = Task(
    mirrors="GQA (balanced test-dev), https://arxiv.org/abs/1902.09506, as in LLaVA-1.5",
    measure="% right",
    read=reader(
        "gqa",
        (
            Layout(("llava_gqa_testdev_balanced.jsonl",), llava, "LLaVA's eval.zip"),
            Layout((ANSWERS, f"data/{ANSWERS}"), official, PAGE),
            Layout(
                ("testdev_balanced_instructions/testdev-*.parquet",),
                tables,
                "lmms-lab/GQA of Hugging Face",
            ),
            Layout(("GQA_TestDev_Balanced.tsv",), tsv, "VLMEvalKit"),
        ),
        questions,
    ),
    score=score,
    summary=mean_score,
    data="LLaVA's eval/gqa with data, lmms-lab/GQA, or VLMEvalKit's GQA_TestDev_Balanced.tsv",
)
