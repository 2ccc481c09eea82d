"""Ask every question with every method, each picture encoded once; a run can be stopped and continued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from statistics import fmean
from typing import Any, TypeAlias

import torch
from PIL.Image import Image

from prumerge.evaluate.asked import Showing
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Job, Plan, at, compares_frames, is_adaptive
from prumerge.evaluate.processes import ALONE, Processes
from prumerge.evaluate.records import Record, by_method
from prumerge.evaluate.tasks import task
from prumerge.evaluate.tasks._task import Question
from prumerge.generate.answer import ended, said
from prumerge.generate.stopwatch import Stopwatch
from prumerge.layers.pruning import average_tokens, pruning
from prumerge.loading.prompts import prepare_batch
from prumerge.models import device_of
from prumerge.pipeline.decide import Decision
from prumerge.pipeline.encode import shown
from prumerge.pipeline.options import DEFAULT, Options, Relevance
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.pipeline.splice import column_sizes
from prumerge.tokens import VisualTokens

PICTURES = 8
"""Pictures that are encoded together, at least."""
ROWS = 96
"""Questions that are answered together, at most."""

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

    def prompt(self, images: Sequence[Image], about: Sequence[Asked]) -> Prompt:
        """Questions about some of the pictures as one batch."""
        rows = [[images[place] for place in places] for places, _ in about]
        inputs = prepare_batch(self.processor, rows, [item.text for _, item in about])
        return Prompt.read(self.model, inputs.to(device_of(self.model)))

    def pipeline(self, spec: str) -> Pipeline:
        """The steps of a method, with a clip as one video if it compares frames."""
        pipeline = Pipeline(spec, self.options)
        if compares_frames(pipeline.method):
            return Pipeline(pipeline.method, self.options.but(clip=True))
        return pipeline


def run(
    model: Any,
    processor: Any,
    plan: Plan,
    log: Log,
    track: Callable[[int, int], None],
    options: Options | None = None,
    relevance: Callable[[Sequence[str]], Relevance] | None = None,
    processes: Processes = ALONE,
) -> None:
    """Answer all that is not in the log yet; `track` is told how many answers came and how many will.

    Adaptive methods go first; then the others are asked at the mean number of tokens that each of them kept.
    Prompts are shortened as `options` say; `relevance` takes a question for each picture of a batch and gives
    what `Options.relevance` is. Of several processes each answers what is asked about its own pictures; when
    all are done, each log knows the answers of all.

    Raises PrumergeError for a budget that a method cannot meet, and what a method or a task says it lacks.
    """
    asker = Asker(model, processor, options or DEFAULT, relevance)
    tokens = sample(asker, plan.showings)
    showings = processes.share(plan.showings)
    each = sum(len(questions) for _, questions in showings)
    own, fixed = plan.own_choice(), plan.fixed(tokens)
    rivals = [spec for spec in plan.methods if not is_adaptive(spec)]
    total = each * (len(fixed) + len(own) * (1 + len(rivals)))
    ask(asker, [*fixed, *own], showings, log, lambda done: track(done, total))
    if processes.meet():
        log.read_again()
    groups, one = by_method(log.records), tokens.patches / tokens.grid[0]
    # Of one picture: a clip has several.
    means = {
        round(fmean(record.tokens_kept * one / record.tokens_in for record in groups[job.label]))
        for job in own
    }
    matched = [at(spec, mean, tokens) for mean in sorted(means) for spec in rivals]
    matched = [job for job in matched if job not in fixed]
    total = each * (len(fixed) + len(own) + len(matched))
    ask(asker, matched, showings, log, lambda done: track(done, total))
    if processes.meet():
        log.read_again()


@torch.inference_mode()
def sample(asker: Asker, showings: Sequence[Showing]) -> VisualTokens:
    """The visual tokens of the first picture or clip, to count on."""
    opens, questions = showings[0]
    images = opens()
    about = [(range(len(images)), questions[0])]
    pictures = asker.pipeline("none").encode(asker.prompt(images, about))
    return VisualTokens.from_frames(pictures) if len(images) > 1 else pictures[0]


@torch.inference_mode()
def ask(
    asker: Asker,
    jobs: Sequence[Job],
    showings: Sequence[Showing],
    log: Log,
    advance: Callable[[int], None],
) -> None:
    """Every question to every method; what the log holds is not asked again, and no picture is opened about
    which nothing is left to ask."""
    if not jobs:
        return
    done = {record.key for record in log.records}
    pipelines = {job: asker.pipeline(job.spec) for job in jobs}
    towers = dict.fromkeys(pipeline.placed.tower for pipeline in pipelines.values())
    for batch in _batches(showings):
        known = {
            (job, one): (job.label, one.task, one.id) in done for job in jobs for _, a in batch for one in a
        }
        advance(sum(known.values()))
        if all(known.values()):
            continue
        images, items = _opened(batch)
        left = {job: [one for one in items if not known[job, one[1]]] for job in jobs}
        prompt_of = cache(partial(asker.prompt, images))  # the same questions once, for all methods
        for tower in towers:  # once for all methods that leave the tower alone, anew for each that does not
            encoded = None
            for job, pipeline in pipelines.items():
                if pipeline.placed.tower != tower:
                    continue
                for about in _parts(left[job]):
                    prompt = prompt_of(about)
                    if prompt.family.reads_text:  # it looks at a picture anew for each question
                        encoded = _encoded(asker, pipeline, prompt, range(len(about)))
                        rows = list(encoded.rows.values())
                    else:
                        if encoded is None:
                            once = {places: (places, item) for places, item in items}
                            encoded = _encoded(asker, pipeline, prompt_of(tuple(once.values())), list(once))
                        rows = [encoded.rows[places] for places, _ in about]
                    encode_ms = encoded.milliseconds / (
                        len(about) if prompt.family.reads_text else len(items)
                    )
                    log.append(*_answers(asker, job, pipeline, prompt, rows, about, encode_ms))
                    advance(len(about))


def _batches(showings: Sequence[Showing]) -> Iterator[list[Showing]]:
    """Some pictures or clips together, by the number of frames that their tasks show."""
    batch: list[Showing] = []
    pictures = 0
    for showing in showings:
        batch.append(showing)
        pictures += task(showing[1][0].task).frames
        if pictures >= PICTURES:
            yield batch
            batch, pictures = [], 0
    if batch:
        yield batch


def _opened(batch: Sequence[Showing]) -> tuple[list[Image], list[Asked]]:
    """The pictures, the frames of a clip together, and each question with the places of its pictures."""
    images: list[Image] = []
    items: list[Asked] = []
    for opens, questions in batch:
        frames = opens()
        places = range(len(images), len(images) + len(frames))
        images += frames
        items += [(places, question) for question in questions]
    return images, items


def _parts(about: Sequence[Asked]) -> Iterator[tuple[Asked, ...]]:
    return (tuple(about[first : first + ROWS]) for first in range(0, len(about), ROWS))


@dataclass(frozen=True)
class _Encoded:
    """Pictures as the vision tower left them, by what says which of them are shown together."""

    rows: dict[Any, list[VisualTokens]]
    milliseconds: float


def _encoded(asker: Asker, pipeline: Pipeline, prompt: Prompt, rows: Sequence[Any]) -> _Encoded:
    """The pictures of each row of a prompt, without the words around them."""
    watch = Stopwatch(device_of(asker.model))
    pictures = Pipeline(pipeline.method).encode(prompt)
    found: dict[Any, list[VisualTokens]] = {row: [] for row in rows}
    for picture, number in zip(pictures, prompt.owners(pictures), strict=True):
        found[rows[number]].append(picture)
    return _Encoded(found, watch.lap())


def _decisions(
    asker: Asker,
    pipeline: Pipeline,
    prompt: Prompt,
    rows: Sequence[list[VisualTokens]],
    about: Sequence[Asked],
) -> list[list[Decision]]:
    """What is kept of the pictures of each row; a row that is asked about again keeps what it kept, unless
    words decide."""
    options = pipeline.options
    reads = any("text" in part.needs for part in pipeline.method.parts) or asker.relevance is not None
    once = list(rows) if reads else list({id(row): row for row in rows}.values())
    flat = [[VisualTokens.from_frames(row)] if options.clip else row for row in once]
    together = options.but(clip=False)  # by now
    if asker.relevance is not None:
        questions = [item.text for row, (_, item) in zip(flat, about, strict=True) for _ in row]
        together = together.but(relevance=asker.relevance(questions))
    pictures = shown(prompt, [one for row in flat for one in row], together)
    found = iter(pipeline.decide(pictures))
    decided = [list(islice(found, len(row))) for row in flat]
    if reads:
        return decided
    of_row = {id(row): own for row, own in zip(once, decided, strict=True)}
    return [of_row[id(row)] for row in rows]


def _answers(
    asker: Asker,
    job: Job,
    pipeline: Pipeline,
    prompt: Prompt,
    rows: Sequence[list[VisualTokens]],
    about: Sequence[Asked],
    encode_ms: float,
) -> list[Record]:
    """One method's answers to questions about encoded pictures, in one batch."""
    model, options = asker.model, pipeline.options
    watch = Stopwatch(device_of(model))
    each = _decisions(asker, pipeline, prompt, rows, about)
    decisions = [one for row in each for one in row]
    reduce_ms = watch.lap() / len(about)
    embeddings = pipeline.project(prompt, decisions)
    shorter = pipeline.splice(prompt, decisions, embeddings)
    sizes = column_sizes(model, shorter, decisions) if options.size_bias else None
    encode_ms += watch.lap() / len(about)  # the projector
    limits = [task(item.task).max_new_tokens for _, item in about]
    with pruning(prompt.model, pipeline.placed.layers, sizes) as inside:
        generated = model.generate(**shorter, max_new_tokens=max(limits), do_sample=False, streamer=watch)
    kept = iter(average_tokens(inside, [len(one) for one in decisions]))
    new = said(prompt, shorter, generated).tolist()
    written = [ended(row, limit, model) for row, limit in zip(new, limits, strict=True)]
    answers = asker.processor.batch_decode([ids for ids, _ in written], skip_special_tokens=True)
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
        )
        for (_, item), row, own, answer, (ids, cut) in zip(
            about, rows, each, map(str.strip, answers), written, strict=True
        )
    ]
