"""What the untouched model says, kept on disk: the lessons of training without labels, or beside them.

The teacher is the model itself, before anything is trained, with all visual tokens. It answers each question
once, greedily, and then reads its answer again; kept are the words, and for each token of the answer (with
the one that ends it) the likeliest next tokens with their log-probabilities.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from prumerge.evaluate.divergence import likeliest
from prumerge.generate.answer import said
from prumerge.loading.prompts import conversation, inputs_of
from prumerge.models import device_of
from prumerge.pipeline.prompt import Prompt
from prumerge.train.batches import IGNORED, Batches
from prumerge.train.lessons import Example, Lesson
from prumerge.train.rows import Row

CHUNK = 64  # rows in a file
LIKELIEST = 64
"""Next tokens kept of each place; what is left of the probability counts as one more."""


class Lessons(Sequence[Example]):
    """Rows with what the teacher said to them, read from disk as they are asked for."""

    def __init__(self, rows: Sequence[Row], folder: Path) -> None:
        self.rows, self.folder = rows, folder

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        with safe_open(_file(self.folder, place // CHUNK), "pt") as file:
            known, inside = json.loads(file.metadata()["lessons"]), place % CHUNK
            first, last = known["ends"][inside : inside + 2]
            ids, taught = (file.get_slice(name)[first:last] for name in ("ids", "log_probabilities"))
        row, answer = self.rows[place], known["answers"][inside]
        return Example(row if answer is None else answered(row, answer), Lesson(ids.long(), taught))


def answered(row: Row, answer: str) -> Row:
    """A question with an answer behind it."""
    turn = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return replace(row, messages=(*row.messages, turn))


@torch.no_grad()
def teach(
    model: Any,
    batches: Batches,
    rows: Sequence[Row],
    folder: Path,
    *,
    batch: int = 8,
    max_new_tokens: int = 128,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    track: Callable[[int, int], None] = lambda done, total: None,
    share: tuple[int, int] = (0, 1),
) -> Lessons:
    """What the untouched model says to rows, those without an answer answered by itself.

    Written to `folder` in files of 64 rows, each whole or not there: a run that was stopped goes on behind
    the last one. `track` is told how many rows are done, and how many there are; `share` is (number,
    count) of the processes that divide the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number, count = share
    model.eval()
    for chunk in range(number, -(-len(rows) // CHUNK), count):
        file = _file(folder, chunk)
        own = [rows[place] for place in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(rows)))]
        if not file.exists():
            with autocast():
                _write(file, _lessons(model, batches, own, batch, max_new_tokens))
        track(min((chunk + 1) * CHUNK, len(rows)), len(rows))
    return Lessons(rows, folder)


def _lessons(
    model: Any, batches: Batches, rows: Sequence[Row], batch: int, max_new_tokens: int
) -> Iterator[tuple[str | None, Lesson]]:
    """Each row's answer, where it had none, and its lesson."""
    for first in range(0, len(rows), batch):
        asked = list(rows[first : first + batch])
        unanswered = [row.messages[-1]["role"] == "user" for row in asked]
        questions = list(compress(asked, unanswered))
        answers = iter(_said(model, batches.processor, questions, max_new_tokens) if questions else ())
        own = [next(answers) if is_open else None for is_open in unanswered]
        whole = [row if said is None else answered(row, said) for row, said in zip(asked, own, strict=True)]
        yield from zip(own, _read_again(model, batches, whole), strict=True)


def _said(model: Any, processor: Any, rows: Sequence[Row], max_new_tokens: int) -> list[str]:
    """The untouched model's own answers."""
    opened = [row.open() for row in rows]
    texts = [conversation(processor, one.messages) for one in opened]
    inputs = inputs_of(processor, [one.pictures for one in opened], texts).to(device_of(model))
    generated = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    new = said(Prompt.read(model, inputs), inputs, generated)
    return [processor.decode(row, skip_special_tokens=True).strip() for row in new]


def _read_again(model: Any, batches: Batches, rows: Sequence[Row]) -> Iterator[Lesson]:
    """What the untouched model expects at each token of the answers."""
    inputs = {name: value.to(device_of(model)) for name, value in batches(rows).items()}
    labels = inputs.pop("labels")[:, 1:]
    logits = model(**inputs, use_cache=False).logits[:, -labels.shape[1] - 1 : -1]
    for row, label in zip(logits, labels, strict=True):
        ids, log_probabilities = likeliest(row[label != IGNORED], LIKELIEST)
        yield Lesson(ids.cpu(), log_probabilities.cpu())


def _write(file: Path, lessons: Iterator[tuple[str | None, Lesson]]) -> None:
    answers, own = zip(*lessons, strict=True)
    ends = torch.tensor([0, *(len(lesson.ids) for lesson in own)]).cumsum(0).tolist()
    draft = file.with_name(f".{file.name}")
    tensors = {
        "ids": torch.cat([lesson.ids for lesson in own]).int(),
        "log_probabilities": torch.cat([lesson.log_probabilities for lesson in own]),
    }
    save_file(tensors, draft, {"lessons": json.dumps({"answers": answers, "ends": ends})})
    os.replace(draft, file)


def _file(folder: Path, chunk: int) -> Path:
    return folder / f"{chunk:06}.safetensors"
