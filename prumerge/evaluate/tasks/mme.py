"""MME: two questions about a picture, one to be answered yes and one no."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from prumerge.errors import PrumergeError, short, unknown
from prumerge.evaluate.scoring import mme, mme_yes_or_no
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader
from prumerge.evaluate.tasks._prompts import SHORT
from prumerge.evaluate.tasks._rows import File, Row, parquet, tsv
from prumerge.evaluate.tasks._task import Question, Scored, Task

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
RELEASE = "github.com/BradyFU/Awesome-Multimodal-Large-Language-Models (MME)"


def release(files: Sequence[Path]) -> list[Row]:
    """MME's own folders, one for each subtask: a text file of questions for each picture."""
    home = next(parent for parent in files[0].parents if parent.name in (*PERCEPTION, *COGNITION)).parent
    rows = []
    for subtask in (*PERCEPTION, *COGNITION):
        folder = beside(home, [subtask], RELEASE)
        apart = folder / "questions_answers_YN"
        for path in sorted((apart if apart.is_dir() else folder).glob("*.txt")):
            pictures = folder / "images" if (folder / "images").is_dir() else folder
            picture = beside(pictures, [f"{path.stem}.{kind}" for kind in ("jpg", "png", "jpeg")], RELEASE)
            text = path.read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
                where = f"{subtask}/{path.name}, row {number}"
                question, _, answer = line.strip().partition("\t")
                values = {"category": subtask, "image_path": path.stem, "question": question}
                rows.append(Row(where, {**values, "answer": answer}, File(picture)))
    return rows


def questions(rows: Sequence[Row]) -> Iterator[Asked]:
    pairs: dict[str, list[tuple[Row, str]]] = defaultdict(list)
    for row in rows:
        subtask = row.text("category")
        if subtask not in (*PERCEPTION, *COGNITION):
            raise PrumergeError(f"{row.where}: {unknown('subtask', subtask, (*PERCEPTION, *COGNITION))}")
        picture = f"{subtask}/{Path(row.text('question_id', 'image_path')).stem}"
        pairs[picture].append((row, row.text("answer").strip().lower()))
    if missing := {*PERCEPTION, *COGNITION} - {picture.partition("/")[0] for picture in pairs}:
        raise PrumergeError(
            f"MME has 14 subtasks, and there is nothing of {', '.join(sorted(missing))}; get the whole of "
            f"{RELEASE}"
        )
    for picture, pair in pairs.items():
        if sorted(label for _, label in pair) != ["no", "yes"]:
            labels = ", ".join(short(label) or "nothing" for _, label in pair)
            raise PrumergeError(
                f"{pair[0][0].where}: each picture has two questions, one to be answered yes and one no; "
                f"{short(picture)} has {labels}; get it again from {RELEASE}"
            )
        for row, label in pair:
            text = row.text("question").replace("Please answer yes or no.", "").strip() + SHORT
            split = picture.partition("/")[0]
            name = f"{picture}/{label}"
            yield row.picture(), Question("mme", name, picture, text, (label,), split=split, group=picture)


def score(question: Question, prediction: str) -> float:
    return float(mme_yes_or_no(prediction) == question.gold[0])


def points(records: Sequence[Scored], subtasks: Sequence[str]) -> float:
    """Accuracy plus accuracy of pairs, summed over subtasks: 200 each at most."""
    return mme((one.split, one.group, one.score) for one in records if one.split in subtasks)


def summary(records: Sequence[Scored]) -> float:
    return points(records, PERCEPTION)


def details(records: Sequence[Scored]) -> dict[str, float]:
    there = {record.split for record in records}
    each = {name: points(records, [name]) for name in (*PERCEPTION, *COGNITION) if name in there}
    return {"cognition": points(records, COGNITION), **each}


TASK = Task(
    mirrors="MME, https://arxiv.org/abs/2306.13394, as in LLaVA-1.5",
    measure="points in perception, of 2000",
    read=reader(
        "mme",
        (
            Layout(
                tuple(
                    f"{home}existence/{apart}*.txt"
                    for home in ("MME_Benchmark_release_version/", "")
                    for apart in ("", "questions_answers_YN/")
                ),
                release,
                RELEASE,
            ),
            Layout(("data/test-*.parquet", "test-*.parquet"), parquet, "lmms-lab/MME of Hugging Face"),
            Layout(("MME.tsv",), tsv, "VLMEvalKit"),
        ),
        questions,
    ),
    score=score,
    summary=summary,
    details=details,
    data="MME_Benchmark_release_version, lmms-lab/MME, or VLMEvalKit's MME.tsv",
)
