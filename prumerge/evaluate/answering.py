"""One method's answers to questions about pictures that are encoded already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, TypeAlias

import torch
from PIL.Image import Image
from transformers import LogitsProcessorList

from prumerge.evaluate.divergence import Follower, Listener, Said
from prumerge.evaluate.plan import Job, compares_frames
from prumerge.evaluate.records import Record
from prumerge.evaluate.tasks import task
from prumerge.evaluate.tasks._task import Question
from prumerge.generate.answer import ended, said
from prumerge.generate.stopwatch import Stopwatch
from prumerge.layers.pruning import average_tokens, pruning
from prumerge.loading.prompts import prepare_batch
from prumerge.models import device_of
from prumerge.pipeline.decide import Decision
from prumerge.pipeline.encode import shown
from prumerge.pipeline.options import Options, Relevance
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.tokens import VisualTokens

Asked: TypeAlias = tuple[range, Question]
"""A question, and the places of its pictures among those encoded together."""


@dataclass(frozen=True)
class Asker:
    """A model that is asked, and how its prompts are shortened."""

    model: Any
    processor: Any
    options: Options
    relevance: Callable[[Sequence[str]], Relevance] | None = None
    """From a question for each picture of a batch to how well the pictures match them."""
    untouched: dict[tuple[str, str], Said] = field(default_factory=dict)
    """What the model says with all visual tokens, by task and question, as far as it was listened to."""
    said: dict[tuple[str, str], str] = field(default_factory=dict)
    """The same as text, answers of an earlier run included."""

    @cached_property
    def device(self) -> torch.device:
        """Where the model computes."""
        return device_of(self.model)

    def prompt(self, images: Sequence[Image], about: Sequence[Asked]) -> Prompt:
        """Questions about some of the pictures as one batch."""
        rows = [[images[place] for place in places] for places, _ in about]
        inputs = prepare_batch(self.processor, rows, [item.text for _, item in about])
        return Prompt.read(self.model, inputs.to(self.device))

    def pipeline(self, spec: str) -> Pipeline:
        """The steps of a method, with a clip as one video if it compares frames."""
        pipeline = Pipeline(spec, self.options)
        if compares_frames(pipeline.method):
            return Pipeline(pipeline.method, self.options.but(clip=True))
        return pipeline


@dataclass(frozen=True)
class Encoded:
    """Pictures as the vision tower left them, by what says which of them are shown together."""

    rows: dict[Any, list[VisualTokens]]
    milliseconds: float


def encode(asker: Asker, pipeline: Pipeline, prompt: Prompt, rows: Sequence[Any]) -> Encoded:
    """The pictures of each row of a prompt, without the words around them."""
    watch = Stopwatch(asker.device)
    pictures = Pipeline(pipeline.method).encode(prompt)
    found: dict[Any, list[VisualTokens]] = {row: [] for row in rows}
    numbers = prompt.rows([one.placeholders for one in pictures])
    for picture, number in zip(pictures, numbers, strict=True):
        found[rows[number]].append(picture)
    return Encoded(found, watch.lap())


def _decisions(
    asker: Asker,
    pipeline: Pipeline,
    prompt: Prompt,
    rows: Sequence[list[VisualTokens]],
    about: Sequence[Asked],
) -> list[list[Decision]]:
    """What is kept of the pictures of each row; a row that is asked about again keeps what it kept, unless
    words decide. Where they do not, pictures are as they were encoded."""
    options = pipeline.options
    scored = asker.relevance is not None or options.relevance is not None
    reads = scored or any("text" in part.needs for part in pipeline.method.parts)
    once = list(rows) if reads else list({id(row): row for row in rows}.values())
    flat = [[VisualTokens.from_frames(row)] if options.clip else row for row in once]
    pictures = [one for row in flat for one in row]
    if reads:
        together = options.but(clip=False)  # by now
        if asker.relevance is not None:
            questions = [item.text for row, (_, item) in zip(flat, about, strict=True) for _ in row]
            together = together.but(relevance=asker.relevance(questions))
        pictures = shown(prompt, pictures, together)
    found = iter(pipeline.decide(pictures))
    decided = [list(islice(found, len(row))) for row in flat]
    if reads:
        return decided
    of_row = {id(row): own for row, own in zip(once, decided, strict=True)}
    return [of_row[id(row)] for row in rows]


def answers(
    asker: Asker,
    job: Job,
    pipeline: Pipeline,
    prompt: Prompt,
    rows: Sequence[list[VisualTokens]],
    about: Sequence[Asked],
    encode_ms: float,
) -> list[Record]:
    """One method's answers to questions about encoded pictures, in one batch.

    What the untouched model said to them must be known (`Asker.untouched`), unless it is `none` that answers.
    Questions without right answers of their own are right where the untouched model's answer is given.
    """
    model = asker.model
    watch = Stopwatch(asker.device)
    each = _decisions(asker, pipeline, prompt, rows, about)
    decisions = [one for row in each for one in row]
    reduce_ms = watch.lap() / len(about)
    embeddings = pipeline.project(prompt, decisions)
    shorter = pipeline.splice(prompt, decisions, embeddings)
    columns = pipeline.columns(prompt, shorter, decisions)
    encode_ms += watch.lap() / len(about)  # the projector
    limits = [task(item.task).max_new_tokens for _, item in about]
    listener = _listener(asker, job, about)
    with pruning(prompt.model, pipeline.placed.layers, *columns) as inside:
        generated = model.generate(
            **shorter,
            max_new_tokens=max(limits),
            do_sample=False,
            streamer=watch,
            logits_processor=LogitsProcessorList([listener]),
        )
    kept = iter(average_tokens(inside, [len(one) for one in decisions]))
    new = said(prompt, shorter, generated)
    written = ended(new.tolist(), limits, model)
    texts = asker.processor.batch_decode([ids for ids, _ in written], skip_special_tokens=True)
    texts = list(map(str.strip, texts))
    lengths = [len(ids) + (not cut) for ids, cut in written]
    if isinstance(listener, Listener):
        for (_, item), heard in zip(about, listener.heard(texts, new, lengths), strict=True):
            asker.untouched[item.task, item.id] = heard
            asker.said.setdefault((item.task, item.id), heard.text)
        compared = [(0.0, length) for length in lengths]
    else:
        compared = listener.compared(new)
    asked = [
        item if item.gold else replace(item, gold=(asker.said[item.task, item.id],)) for _, item in about
    ]
    return [
        Record(
            task=item.task,
            id=item.id,
            picture=item.picture,
            method=job.label,
            spec=job.spec,
            question=item.text,
            gold=item.gold,
            prediction=answer,
            score=task(item.task).score(item, answer),
            split=item.split,
            group=item.group,
            options=item.options,
            tokens_in=sum(one.patches for one in row),
            tokens_kept=sum(islice(kept, len(own))),
            encode_ms=encode_ms,
            reduce_ms=reduce_ms,
            prefill_ms=watch.laps[1] / len(about),
            decode_ms=(watch.laps[-1] - watch.laps[1]) / len(about),
            answer_tokens=len(ids),
            cut=cut,
            divergence=round(divergence, 4),  # batches of another size round otherwise
            compared=count,
            probability=round(probability, 4),
        )
        for item, row, own, answer, (ids, cut), (divergence, count), probability in zip(
            asked, rows, each, texts, written, compared, listener.probabilities(lengths), strict=True
        )
    ]


def _listener(asker: Asker, job: Job, about: Sequence[Asked]) -> Listener | Follower:
    """What looks on while an answer is generated."""
    if job.spec == "none":
        return Listener()
    known = [asker.untouched[item.task, item.id] for _, item in about]
    return Follower(known, asker.device)
