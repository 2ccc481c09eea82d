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

from prumerge.evaluate.plan import Job, Plan, at, compares_frames, is_adaptive
from prumerge.evaluate.records import Log, Record, by_method
from prumerge.evaluate.scoring import score
from prumerge.generate.answer import said
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
from prumerge.tiny.benchmarks import Item, asked
from prumerge.tiny.scenes import Scene
from prumerge.tokens import VisualTokens

PICTURES = 8
"""Pictures that are encoded together, at least."""

Asked: TypeAlias = tuple[range, Item]
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
        inputs = prepare_batch(self.processor, rows, [item.question for _, item in about])
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
) -> None:
    """Answer all that is not in the log yet; `track` is told how many answers came and how many will.

    Adaptive methods go first; then the others are asked at the mean number of tokens that each of them kept.
    Prompts are shortened as `options` say; `relevance` takes a question for each picture of a batch and gives
    what `Options.relevance` is.

    Raises PrumergeError for a budget that a method cannot meet, and what a method says it lacks.
    """
    asker = Asker(model, processor, options or DEFAULT, relevance)
    tokens = sample(asker, plan)
    each = plan.questions * len(plan.benchmarks)
    own, fixed = plan.own_choice(), plan.fixed(tokens)
    rivals = [spec for spec in plan.methods if not is_adaptive(spec)]
    total = each * (len(fixed) + len(own) * (1 + len(rivals)))
    ask(asker, [*fixed, *own], plan, log, lambda done: track(done, total))
    groups, one = by_method(log.records), tokens.patches / tokens.grid[0]
    # Of one picture: a clip has several.
    means = {
        round(fmean(record.tokens_kept * one / record.tokens_in for record in groups[job.label]))
        for job in own
    }
    matched = [at(spec, mean, tokens) for mean in sorted(means) for spec in rivals]
    matched = [job for job in matched if job not in fixed]
    total = each * (len(fixed) + len(own) + len(matched))
    ask(asker, matched, plan, log, lambda done: track(done, total))


@torch.inference_mode()
def sample(asker: Asker, plan: Plan) -> VisualTokens:
    """The visual tokens of the first question's picture or clip, to count on."""
    frames, items = next(asked(1, plan.benchmarks))
    images = [frame.image for frame in frames]
    about = [(range(len(images)), items[0])]
    pictures = asker.pipeline("none").encode(asker.prompt(images, about))
    return VisualTokens.from_frames(pictures) if len(images) > 1 else pictures[0]


@torch.inference_mode()
def ask(asker: Asker, jobs: Sequence[Job], plan: Plan, log: Log, advance: Callable[[int], None]) -> None:
    """Every question of the plan to every method; what the log holds is not asked again."""
    if not jobs:
        return
    done = {record.key for record in log.records}
    pipelines = {job: asker.pipeline(job.spec) for job in jobs}
    towers = dict.fromkeys(pipeline.placed.tower for pipeline in pipelines.values())
    scenes = asked(plan.questions, plan.benchmarks, plan.unseen)
    while batch := _next_pictures(scenes):
        images, items = batch
        left = {job: [one for one in items if (job.label, one[1].id) not in done] for job in jobs}
        advance(sum(len(items) - len(rest) for rest in left.values()))
        prompt_of = cache(partial(asker.prompt, images))  # the same questions once, for all methods
        for tower in towers:  # once for all methods that leave the tower alone, anew for each that does not
            encoded = None
            for job, pipeline in pipelines.items():
                about = left[job]
                if not about or pipeline.placed.tower != tower:
                    continue
                prompt = prompt_of(tuple(about))
                if prompt.family.reads_text:  # it looks at a picture anew for each question
                    encoded = _encoded(asker, pipeline, prompt, range(len(about)))
                    rows = list(encoded.rows.values())
                else:
                    if encoded is None:
                        once = {places: (places, item) for places, item in items}
                        encoded = _encoded(asker, pipeline, prompt_of(tuple(once.values())), list(once))
                    rows = [encoded.rows[places] for places, _ in about]
                encode_ms = encoded.milliseconds / (len(about) if prompt.family.reads_text else len(items))
                log.append(*_answers(asker, job, pipeline, prompt, rows, about, encode_ms))
                advance(len(about))


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


def _next_pictures(
    scenes: Iterator[tuple[tuple[Scene, ...], list[Item]]],
) -> tuple[list[Image], list[Asked]] | None:
    """Some pictures, the frames of a clip together, and each question with the places of its pictures."""
    images: list[Image] = []
    items: list[Asked] = []
    while len(images) < PICTURES and (following := next(scenes, None)):
        frames, about = following
        places = range(len(images), len(images) + len(frames))
        images += [frame.image for frame in frames]
        items += [(places, item) for item in about]
    return (images, items) if items else None


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
        questions = [item.question for row, (_, item) in zip(flat, about, strict=True) for _ in row]
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
    with pruning(prompt.model, pipeline.placed.layers, sizes) as inside:
        generated = model.generate(**shorter, max_new_tokens=12, do_sample=False, streamer=watch)
    kept = iter(average_tokens(inside, [len(one) for one in decisions]))
    answers = asker.processor.batch_decode(said(prompt, shorter, generated), skip_special_tokens=True)
    return [
        Record(
            benchmark=item.benchmark,
            id=item.id,
            picture=item.picture,
            method=job.label,
            spec=job.spec,
            question=item.question,
            gold=item.gold,
            prediction=answer,
            score=score(item.benchmark, answer, item.gold, item.options),
            split=item.split,
            group=item.group,
            options=item.options,
            tokens_in=sum(one.patches for one in row),
            tokens_kept=sum(islice(kept, len(own))),
            encode_ms=encode_ms,
            reduce_ms=reduce_ms,
            prefill_ms=watch.laps[1] / len(about),
            decode_ms=(watch.laps[-1] - watch.laps[1]) / len(about),
        )
        for (_, item), row, own, answer in zip(about, rows, each, map(str.strip, answers), strict=True)
    ]
