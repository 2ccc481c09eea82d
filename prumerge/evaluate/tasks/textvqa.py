"""TextVQA (val): what is written in the picture, with or without what an OCR system read.

LLaVA's published numbers are those with OCR tokens in the prompt; without them the model has to read by
itself, and that is where a loss of visual tokens shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prumerge.errors import PrumergeError
from prumerge.evaluate import scoring
from prumerge.evaluate.tasks._layouts import Asked, Layout, beside, reader, without_prompt
from prumerge.evaluate.tasks._prompts import SHORT
from prumerge.evaluate.tasks._rows import File, Row, json_lines, parquet, read_json, rows_of, tsv
from prumerge.evaluate.tasks._scores import mean_score
from prumerge.evaluate.tasks._task import Question, Scored, Task

PAGE = "https://textvqa.org/dataset"
LLAVA = "llava_textvqa_val_v051_ocr.jsonl"
REFERENCE = "\nReference OCR token: "
SPLITS = {"yes": "with OCR tokens", "no": "without OCR tokens"}


def official(files: Sequence[Path]) -> list[Row]:
    """TextVQA's own questions, with the OCR tokens of LLaVA's question file if that lies beside them."""
    path = files[0]
    value = read_json(path)
    rows = rows_of(value.get("data") if isinstance(value, dict) else None, path)
    pictures = beside(path.parent, ["train_images", "train_val_images/train_images"], PAGE)
    prompts: dict[tuple[str, str], str] = {}
    if (path.parent / LLAVA).is_file():
        for row in json_lines(path.parent / LLAVA):
            question, _, tokens = without_prompt(row.text("text")).partition(REFERENCE)
            prompts[row.text("question_id"), question.lower()] = tokens
        _check_asked(rows, prompts)
    return [
        Row(
            row.where,
            {**row.values, "prompt": prompts.get(_key(row))},
            File(pictures / f"{row.text('image_id')}.jpg"),
        )
        for row in rows
    ]


def _key(row: Row) -> tuple[str, str]:
    return row.text("image_id"), row.text("question").lower()


def _check_asked(rows: Sequence[Row], prompts: dict[tuple[str, str], str]) -> None:
    if missing := [row for row in rows if _key(row) not in prompts]:
        raise PrumergeError(
            f"{len(missing)} of {len(rows)} questions are not in {LLAVA}, the first is {missing[0].where}; "
            f"get TextVQA_0.5.1_val.json from {PAGE} and {LLAVA} from LLaVA's eval.zip"
        )


def questions(rows: Sequence[Row], ocr: str) -> Iterator[Asked]:
    for row in rows:
        golds = row.several("answers", "answer")
        if len(golds) != 10:
            raise PrumergeError(f"{row.where} has {len(golds)} answers and not ten; get a whole copy")
        text = row.text("question").capitalize()
        if ocr == "yes":
            text += REFERENCE + _tokens(row)
        name, picture = row.text("question_id", "index"), row.text("image_id", "index")
        yield row.picture(), Question("textvqa", name, picture, text + SHORT, golds, split=SPLITS[ocr])


def _tokens(row: Row) -> str:
    """What an OCR system read in the picture. Raises PrumergeError if that is not in the data."""
    tokens = row.values.get("ocr_tokens")
    if isinstance(tokens, list):
        return ", ".join(map(str, tokens))
    if row.values.get("prompt") is None:
        raise PrumergeError(
            f"{row.where} comes without OCR tokens; put LLaVA's {LLAVA} beside it, or ask without them by "
            "the option ocr=no"
        )
    return row.text("prompt")


def score(question: Question, prediction: str) -> float:
    return scoring.textvqa(prediction, question.gold)


def details(records: Sequence[Scored]) -> dict[str, float]:
    """Under the name of what was in the prompt, since numbers with and without it cannot be compared."""
    splits = dict.fromkeys(record.split for record in records)
    return {
        split: mean_score([record for record in records if record.split == split]) for split in sorted(splits)
    }


TASK = Task(
    mirrors="TextVQA (val), https://arxiv.org/abs/1904.08920, as in LLaVA-1.5",
    measure="% of agreement with ten annotators; OCR tokens in the prompt unless ocr=no",
    read=reader(
        "textvqa",
        (
            Layout(("TextVQA_0.5.1_val.json",), official, PAGE),
            Layout(
                ("data/validation-*.parquet", "validation-*.parquet"),
                parquet,
                "lmms-lab/textvqa of Hugging Face",
            ),
            Layout(("TextVQA_VAL.tsv",), tsv, "VLMEvalKit, without OCR tokens"),
        ),
        questions,
        options={"ocr": ("yes", "no")},
    ),
    score=score,
    summary=mean_score,
    details=details,
    options={"ocr": "yes: OCR tokens in the prompt, as in LLaVA's numbers; no: the model reads by itself"},
    data="LLaVA's eval/textvqa, lmms-lab/textvqa, or VLMEvalKit's TextVQA_VAL.tsv",
)
