"""Rows as a model reads them in training: one padded batch, whose labels are the answers and what ends them.

Answers are marked in the conversation before the chat template sees them, and the marks are taken out again
where the text meets the tokenizer. So what is trained is found in the very text that the model reads,
whatever the template and the processor put around it.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from prumerge.errors import PrumergeError
from prumerge.loading.prompts import conversation, inputs_of
from prumerge.train.lessons import Example, together
from prumerge.train.rows import Opened, Row

BEGIN, END = "\uf8f0", "\uf8f1"  # letters of nobody's script
IGNORED = -100  # the label of what is not trained
_ENDS = re.compile(r"end|eot|eou|eos|/s")  # how special tokens that end a turn are called


@dataclass(frozen=True)
class Batches:
    """Makes a batch of rows, or of examples: rows with what the untouched model said to them.

    A batch is what the processor makes, on the CPU, padded on the right (where queries stand in front of the
    words, on the left), with `labels` [B, L]: the tokens of every answer and the one that ends it, -100
    elsewhere. Where a template writes nothing behind an answer, the tokenizer's end of sequence is put there:
    a model that never reads it does not learn to stop.
    """

    processor: Any

    def __call__(self, rows: Sequence[Row | Example]) -> dict[str, Tensor]:
        """Raises PrumergeError, naming the row, for what cannot be opened or read."""
        examples = [one if isinstance(one, Example) else Example(one) for one in rows]
        opened = [example.row.open() for example in examples]
        texts = [
            marked(self.processor, one, example.row.where)
            for one, example in zip(opened, examples, strict=True)
        ]
        pictures = [one.pictures for one in opened]
        try:
            inputs, answers = _inputs(self.processor, pictures, texts)
        except PrumergeError as error:
            raise PrumergeError(f"{', '.join(one.row.where for one in examples)}: {error}") from error
        labels = inputs["input_ids"].masked_fill(~answers, IGNORED)
        batch = {**inputs, "labels": labels}
        lessons = [example.lesson for example in examples if example.lesson is not None]
        return batch | together(lessons) if lessons else batch


def marked(processor: Any, opened: Opened, where: str) -> str:
    """A conversation as the model reads it, with `BEGIN` before each answer and `END` behind what ends it.

    Raises PrumergeError for a text that holds a mark, and for a template that leaves an answer out.
    """
    messages, answers = [], 0
    for message in opened.messages:
        if any(mark in part.get("text", "") for part in message["content"] for mark in (BEGIN, END)):
            raise PrumergeError(f"{where} holds a letter of the private use area; take it out")
        if message["role"] == "assistant":
            text = " ".join(part["text"] for part in message["content"])
            message = {"role": "assistant", "content": [{"type": "text", "text": BEGIN + text + END}]}
            answers += 1
        messages.append(message)
    text = conversation(processor, messages)
    if text.count(BEGIN) != answers or text.count(END) != answers:
        raise PrumergeError(f"{where}: the model's chat template does not show each of its {answers} answers")
    if _takes_suffix(processor):  # which puts the end there itself
        return text
    tokenizer = processor.tokenizer
    if not tokenizer.eos_token:
        raise PrumergeError("the model's tokenizer has no token that ends an answer; set its eos_token")
    ends = "|".join(map(re.escape, _ends(tokenizer)))
    return re.sub(f"{END}(\\s*(?:{ends}))?", lambda found: (found[1] or tokenizer.eos_token) + END, text)


def trained_text(processor: Any, labels: Tensor) -> list[str]:
    """What the labels [B, L] of a batch train, as text."""
    return [processor.tokenizer.decode(row[row != IGNORED]) for row in labels]


def _ends(tokenizer: Any) -> list[str]:
    """The words that end an answer, the longest first."""
    special = {str(word) for word in tokenizer.all_special_tokens}
    special |= {str(word) for word in tokenizer.added_tokens_decoder.values() if word.special}
    return sorted({tokenizer.eos_token, *filter(_ENDS.search, special)}, key=len, reverse=True)


def _inputs(
    processor: Any, pictures: Sequence[Sequence[Any]], texts: Sequence[str]
) -> tuple[dict[str, Tensor], Bool[Tensor, "B L"]]:
    """A processor's batch of marked texts, and which of its tokens are answers."""
    if _takes_suffix(processor):
        return _with_suffix(processor, pictures, texts)
    tokenizer = _Unmarking(processor.tokenizer)
    reader = copy.copy(processor)
    reader.tokenizer = tokenizer
    asked = [text.partition(BEGIN)[0].rstrip() for text in texts]  # a Q-Former does not read the answer
    inputs = inputs_of(reader, pictures, texts, side="right", instructions=asked)
    answers, length = tokenizer.answers, inputs["input_ids"].shape[1]
    return dict(inputs), F.pad(answers, (length - answers.shape[1], 0))


class _Unmarking:
    """A tokenizer that takes the marks out of its texts, and keeps which tokens stood between them."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise PrumergeError("training needs a fast tokenizer, which says where in the text tokens stand")
        self.tokenizer = tokenizer
        self.answers = torch.zeros(0, 0, dtype=torch.bool)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, text: str | Sequence[str], *given: Any, **more: Any) -> Any:
        texts, spans = zip(*map(_unmarked, [text] if isinstance(text, str) else text), strict=True)
        found = self.tokenizer(list(texts), *given, **{**more, "return_offsets_mapping": True})
        begin, end = torch.as_tensor(found.pop("offset_mapping")).unbind(-1)  # [B, L], 0 and 0 in padding
        self.answers = torch.zeros_like(begin, dtype=torch.bool)
        for row, own in enumerate(spans):
            for first, last in own:
                self.answers[row] |= (begin[row] < last) & (end[row] > first)
        return found


def _unmarked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without its marks, and from where to where its answers stand there."""
    pieces = re.split(f"[{BEGIN}{END}]", text)  # words, answer, words, answer, ..., words
    ends = torch.tensor([len(piece) for piece in pieces]).cumsum(0).tolist()
    return "".join(pieces), list(zip(ends[:-1:2], ends[1::2], strict=True))


def _takes_suffix(processor: Any) -> bool:
    """Whether the processor is handed the answer apart, since all before it is seen both ways (PaliGemma)."""
    return "suffix" in inspect.signature(type(processor).__call__).parameters


def _with_suffix(
    processor: Any, pictures: Sequence[Sequence[Any]], texts: Sequence[str]
) -> tuple[dict[str, Tensor], Bool[Tensor, "B L"]]:
    questions, answers = [], []
    for text in texts:
        if text.count(BEGIN) != 1:
            raise PrumergeError("this model learns one answer a row; take conversations apart")
        question, _, answer = text.partition(BEGIN)
        questions.append(question.rstrip())
        answers.append(answer.partition(END)[0])
    inputs = processor(
        images=pictures if any(pictures) else None,
        text=questions,
        suffix=answers,
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    inputs.pop("labels", None)
    return dict(inputs), (inputs["token_type_ids"] == 1) & (inputs["attention_mask"] == 1)
