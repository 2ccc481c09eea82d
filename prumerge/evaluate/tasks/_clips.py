"""What the video sets share: eight frames, an open question, and answers scored without a judge.

Published numbers are those of a language model as judge, and differ between its versions by more than methods
do. `prumerge evaluate --judge` asks one, and reports it apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prumerge.errors import PrumergeError
from prumerge.evaluate.scoring import accuracy, exact, holds, token_f1
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader
from prumerge.evaluate.tasks._prompts import SHORT
from prumerge.evaluate.tasks._rows import File, Row, json_lines, parquet, read_json, rows_of
from prumerge.evaluate.tasks._scores import mean_score
from prumerge.evaluate.tasks._task import Question, Scored, Task
from prumerge.loading.clips import FRAMES, VIDEOS

PAGE = "github.com/PKU-YuanGroup/Video-LLaVA, TRAIN_AND_VALIDATE.md"
_CLIPS = ("videos/all", "videos", "all_test")  # of MSRVTT-QA, MSVD-QA and ActivityNet-QA
_ANIMATIONS = (".gif", ".webp", ".png", ".avif")


def video_llava(files: Sequence[Path]) -> list[Row]:
    """Questions and answers in two files, which belong together by their ids."""
    asked, folder = rows_of(read_json(files[0]), files[0]), files[0].parent
    path = beside(folder, ["test_a.json"], PAGE)
    answers = {row.text("question_id"): row.text("answer") for row in rows_of(read_json(path), path)}
    if missing := [row for row in asked if row.text("question_id") not in answers]:
        raise PrumergeError(
            f"{len(missing)} of {len(asked)} questions have no answer in test_a.json, the first is "
            f"{missing[0].text('question_id')}; get both files of the same split from {PAGE}"
        )
    answered = [{**row.values, "answer": answers[row.text("question_id")]} for row in asked]
    return _with_clips([Row(row.where, values) for row, values in zip(asked, answered, strict=True)], folder)


def lines(files: Sequence[Path]) -> list[Row]:
    """A row of question_id, video_name, question and answer on each line."""
    return _with_clips(json_lines(files[0]), files[0].parent)


def table(files: Sequence[Path]) -> list[Row]:
    """The same in a table, whose videos lie beside it, or beside its folder `data`."""
    folder = files[0].parent
    return _with_clips(parquet(files), folder.parent if folder.name == "data" else folder)


def _with_clips(rows: Sequence[Row], folder: Path) -> list[Row]:
    """Rows with the files of their clips, whose names may begin with v_ (ActivityNet)."""
    home = beside(folder, _CLIPS, PAGE)
    there: dict[str, Path] = {}
    for path in sorted(home.iterdir()):
        if path.is_dir() or path.suffix.lower() in (*VIDEOS, *_ANIMATIONS):
            name = path.name if path.is_dir() else path.stem
            there[name] = path
            there.setdefault(name.removeprefix("v_"), path)
    return [
        Row(row.where, row.values, File(there.get(name, home / f"{name}.mp4"), FRAMES))
        for row, name in ((row, row.text("video_name")) for row in rows)
    ]


def score(question: Question, prediction: str) -> float:
    return holds(prediction, question.gold[0])


def details(records: Sequence[Scored]) -> dict[str, float]:
    pairs = [(record.prediction, record.gold[0]) for record in records]
    return {
        "exact": accuracy(exact(*pair) for pair in pairs),
        "token F1": accuracy(token_f1(*pair) for pair in pairs),
    }


def open_question(task: str, mirrors: str, folder: str) -> Task:
    """A set of clips with open questions; `folder` is Video-LLaVA's name of it."""

    def questions(rows: Sequence[Row], short: str) -> Iterator[Asked]:
        for row in rows:
            text = row.text("question") + (SHORT if short == "yes" else "")
            name, clip = row.text("question_id"), row.text("video_name")
            yield row.picture(), Question(task, name, clip, text, (row.text("answer"),))

    return Task(
        mirrors=mirrors,
        measure="% of answers that hold the right words; no judge, so not comparable with GPT's numbers",
        read=reader(
            task,
            (
                Layout(("test_q.json",), video_llava, PAGE),
                Layout(("test.jsonl",), lines, "rows of question_id, video_name, question, answer"),
                Layout(("data/test-*.parquet", "test-*.parquet"), table, "the same rows in a table"),
            ),
            questions,
            folders=(folder,),
            options={"short": ("no", "yes")},
        ),
        score=score,
        summary=mean_score,
        details=details,
        data=f"Video-LLaVA's GPT_Zero_Shot_QA/{folder}, or such rows in test.jsonl or a table beside videos",
        options={
            "short": "no: the question alone, as in Video-LLaVA; yes: with LLaVA's line for short answers"
        },
        max_new_tokens=64,
        frames=FRAMES,
        judged=True,
    )
