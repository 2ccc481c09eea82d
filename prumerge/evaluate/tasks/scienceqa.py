"""ScienceQA: choices about school science, of which only those with a picture are asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase

from prumerge.errors import PrumergeError
from prumerge.evaluate.scoring import llava_letter
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader
from prumerge.evaluate.tasks._prompts import LETTER, lettered
from prumerge.evaluate.tasks._rows import File, Row, parquet, read_json, rows_of, tsv
from prumerge.evaluate.tasks._scores import mean_score
from prumerge.evaluate.tasks._task import Question, Task

RELEASE = "github.com/lupantech/ScienceQA, data/scienceqa"


def llava(files: Sequence[Path]) -> list[Row]:
    """LLaVA's test file, which asks in its own order: context, question, choices.

    Its answers are held against ScienceQA's problems.json if that lies beside it.
    """
    path = files[0]
    problems = read_json(path.parent / "problems.json") if (path.parent / "problems.json").is_file() else {}
    pictures = beside(path.parent, ["images/test", "test"], RELEASE)
    rows = []
    for row in rows_of(read_json(path), path):
        try:
            (asked, answered), name = row.values["conversations"], str(row.values["id"])
            prompt, letter = str(asked["value"]), str(answered["value"]).strip()
        except (KeyError, TypeError, ValueError):
            raise PrumergeError(f"{row.where} is no question with its answer; get a whole copy") from None
        if name in problems and problems[name].get("answer") != ascii_uppercase.find(letter):
            raise PrumergeError(
                f"{row.where} (id {name}) is answered by {letter}, and in problems.json by "
                f"{ascii_uppercase[problems[name]['answer']]}; get both again, the latter from {RELEASE}"
            )
        if picture := row.values.get("image"):
            text = prompt.replace("<image>", "").strip() + LETTER
            rows.append(Row(row.where, {"text": text, "answer": letter}, File(pictures / str(picture))))
    return rows


def problems(files: Sequence[Path]) -> list[Row]:
    """ScienceQA's own files: problems by their id, and the ids of the test split."""
    folder = files[0].parent
    everything = read_json(files[0])
    test = read_json(beside(folder, ["pid_splits.json"], RELEASE))["test"]
    pictures = beside(folder, ["images/test", "test"], RELEASE)
    return [
        Row(f"problems.json, id {name}", problem, File(pictures / name / problem["image"]))
        for name, problem in ((name, everything.get(name, {})) for name in test)
        if problem.get("image")
    ]


def questions(rows: Sequence[Row]) -> Iterator[Asked]:
    """Numbered in the order of the test split, since not every copy has the ids of its problems."""
    for number, row in enumerate(rows):
        text, options = row.optional("text"), 0
        answer = row.text("answer").strip()
        if text:
            options = sum(f"\n{letter}. " in text for letter in "ABCDE")
        else:
            choices = _choices(row)
            hint, options = row.optional("hint"), len(choices)
            text = lettered((f"Context: {hint}\n" if hint else "") + row.text("question"), choices)
        if answer.isdecimal():
            answer = ascii_uppercase[int(answer)]
        if answer not in ascii_uppercase[:options]:
            raise PrumergeError(
                f"{row.where} has {options} choices and the answer {answer}; get a whole copy"
            )
        name = f"{number:04}"
        yield row.picture(), Question("scienceqa", name, name, text, (answer,), options=options)


def _choices(row: Row) -> list[str]:
    if "choices" in row.values:
        return list(row.several("choices"))
    return [option for letter in "ABCDE" if (option := row.optional(letter))]


def score(question: Question, prediction: str) -> float:
    return float(llava_letter(prediction, question.options) == question.gold[0])


TASK = Task(
    mirrors="ScienceQA (test, with pictures), https://arxiv.org/abs/2209.09513, as in LLaVA-1.5",
    measure="% right",
    read=reader(
        "scienceqa",
        (
            Layout(("llava_test_CQM-A.json",), llava, "LLaVA's eval.zip"),
            Layout(("problems.json",), problems, RELEASE),
            Layout(
                ("ScienceQA-IMG/test-*.parquet", "test-*.parquet"),
                parquet,
                "lmms-lab/ScienceQA of Hugging Face",
            ),
            Layout(("ScienceQA_TEST.tsv",), tsv, "VLMEvalKit"),
        ),
        questions,
    ),
    score=score,
    summary=mean_score,
    data="LLaVA's eval/scienceqa, ScienceQA's files, lmms-lab/ScienceQA or VLMEvalKit's ScienceQA_TEST.tsv",
)
