"""MMBench: a choice asked again with its options moved round; it counts if it is right every time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from prumerge.errors import PrumergeError
from prumerge.evaluate.scoring import all_right, choice
from prumerge.evaluate.tasks._layouts import Asked, Layout, reader
from prumerge.evaluate.tasks._prompts import LETTER, lettered
from prumerge.evaluate.tasks._rows import Row, parquet, tsv
from prumerge.evaluate.tasks._task import Question, Scored, Task

TURN = 1_000_000
"""Rows whose index is the same but for multiples of this are rotations of one question."""


def questions(rows: Sequence[Row]) -> Iterator[Asked]:
    turns: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if not row.text("index").isdecimal():
            raise PrumergeError(f"{row.where}: {row.text('index')!r} is no index; get a whole copy")
        turns[int(row.text("index")) % TURN].append(row)
    for base, members in turns.items():
        _check_rotations(base, members)
    for row in rows:
        hint, options = row.optional("hint"), _options(row)
        text = lettered((f"{hint}\n" if hint else "") + row.text("question"), options)
        group = str(int(row.text("index")) % TURN)
        question = Question(
            "mmbench",
            row.text("index"),
            group,
            text,
            (row.text("answer").strip(),),
            split=row.optional("category"),
            group=group,
            options=len(options),
        )
        yield row.picture(), question


def _options(row: Row) -> list[str]:
    """The choices of a row, as far as there are any."""
    found: list[str] = []
    for letter in "ABCD":
        if not (option := row.optional(letter)):
            break
        found.append(option)
    return found


def _check_rotations(group: int, rows: Sequence[Row]) -> None:
    """Raise PrumergeError unless each choice stands at each letter once, and the right one is the same."""
    options = _options(rows[0])
    answers = [row.text("answer").strip() for row in rows]
    again = "; get mmbench_dev_20230712.tsv again from MMBench's page"
    if len(rows) != len(options) or sorted(answers) != list("ABCD"[: len(options)]):
        raise PrumergeError(
            f"question {group} has {len(options)} choices, so it is asked {len(options)} times with its "
            f"right answer at each letter; here it is at {', '.join(sorted(answers))}{again}"
        )
    right = {row.optional(answer) for row, answer in zip(rows, answers, strict=True)}
    if len(right) > 1:
        raise PrumergeError(
            f"question {group} has different right answers in its rotations: {' and '.join(sorted(right))}"
            f"{again}"
        )


def choices(question: Question) -> list[str]:
    """The texts of a question's options, read from what is asked."""
    rest, found = question.text.removesuffix(LETTER), []
    for mark in reversed("ABCD"[: question.options]):
        rest, _, option = rest.rpartition(f"\n{mark}. ")
        found.append(option)
    return found[::-1]


def score(question: Question, prediction: str) -> float:
    return float(choice(prediction, choices(question)) == question.gold[0])


def summary(records: Sequence[Scored]) -> float:
    return all_right((record.group, record.score) for record in records)


def details(records: Sequence[Scored]) -> dict[str, float]:
    rows: dict[str, list[Scored]] = defaultdict(list)
    for record in records:
        rows[record.split].append(record)
    single = 100 * sum(record.score for record in records) / len(records)
    return {"every rotation alone": single, **{name: summary(rows[name]) for name in sorted(rows) if name}}


TASK = Task(
    mirrors="MMBench (dev, English), https://arxiv.org/abs/2307.06281, as in LLaVA-1.5, read without a judge",
    measure="% right in all rotations",
    read=reader(
        "mmbench",
        (
            Layout(("mmbench_dev_20230712.tsv", "mmbench_dev_en_*.tsv"), tsv, "opencompass/MMBench"),
            Layout(("MMBench_DEV_EN.tsv", "MMBench_DEV_EN_V11.tsv"), tsv, "VLMEvalKit"),
            Layout(
                ("en/dev-*.parquet", "data/dev-*.parquet", "dev-*.parquet"),
                parquet,
                "lmms-lab/MMBench of Hugging Face",
            ),
        ),
        questions,
    ),
    score=score,
    summary=summary,
    details=details,
    data="mmbench_dev_20230712.tsv as LLaVA reads it, VLMEvalKit's MMBench_DEV_EN.tsv, or lmms-lab/MMBench",
)
