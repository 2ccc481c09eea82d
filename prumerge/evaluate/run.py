"""Ask every question with every method, each picture encoded once; a run can be stopped and continued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from statistics import fmean
from typing import Any

import torch
from PIL.Image import Image

from prumerge.evaluate.answering import Asked, Asker, answers, encode
from prumerge.evaluate.asked import Showing
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Job, Plan, at, is_adaptive
from prumerge.evaluate.processes import ALONE, Processes
from prumerge.evaluate.records import by_method
from prumerge.evaluate.tasks import task
from prumerge.pipeline.options import DEFAULT, Options, Relevance
from prumerge.tokens import VisualTokens

UNTOUCHED = Job("none", "none")
"""All visual tokens: what every other method is compared with."""
PICTURES = 8
"""Pictures that are encoded together, at least."""
ROWS = 96
"""Questions that are answered together, at most."""


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
    together: int = PICTURES,
) -> None:
    """Every question to every method, with at least so many pictures encoded together; what the log holds is
    not asked again, and no picture is opened about which nothing is left to ask."""
    if not jobs:
        return
    logged = {record.key for record in log.records}
    asker.said.update(
        {record.place: record.prediction for record in log.records if record.method == UNTOUCHED.label}
    )
    pipelines = {job: asker.pipeline(job.spec) for job in (UNTOUCHED, *jobs)}
    towers = dict.fromkeys(pipeline.placed.tower for pipeline in pipelines.values())
    for batch in _batches(showings, together):
        asked = [(job, one) for job in jobs for _, questions in batch for one in questions]
        open_ = {(job, one): (job.label, one.task, one.id) not in logged for job, one in asked}
        advance(len(open_) - sum(open_.values()))
        if not any(open_.values()):
            continue
        images, items = _opened(batch)
        left = {job: [one for one in items if open_[job, one[1]]] for job in jobs}
        wanted = {one for (_, one), is_open in open_.items() if is_open}
        heard = {one for one in wanted if (one.task, one.id) in asker.untouched}
        left[UNTOUCHED] = [  # also to be listened to again, where its answer is in the log
            one for one in items if one[1] in wanted - heard or open_.get((UNTOUCHED, one[1]))
        ]
        prompt_of = cache(partial(asker.prompt, images))  # the same questions once, for all methods
        for tower in towers:  # once for all methods that leave the tower alone, anew for each that does not
            encoded = None
            for job, pipeline in pipelines.items():
                if pipeline.placed.tower != tower:
                    continue
                for about in _parts(left[job]):
                    prompt = prompt_of(about)
                    if prompt.family.reads_text:  # it looks at a picture anew for each question
                        encoded = encode(asker, pipeline, prompt, range(len(about)))
                        rows = list(encoded.rows.values())
                    else:
                        if encoded is None:
                            once = {places: (places, item) for places, item in items}
                            encoded = encode(asker, pipeline, prompt_of(tuple(once.values())), list(once))
                        rows = [encoded.rows[places] for places, _ in about]
                    encode_ms = encoded.milliseconds / (
                        len(about) if prompt.family.reads_text else len(items)
                    )
                    answered = answers(asker, job, pipeline, prompt, rows, about, encode_ms)
                    new = [
                        record
                        for record, (_, item) in zip(answered, about, strict=True)
                        if open_.get((job, item))
                    ]
                    log.append(*new)
                    advance(len(new))


def _batches(showings: Sequence[Showing], together: int) -> Iterator[list[Showing]]:
    """So many pictures or clips together, by the number of frames that their tasks show."""
    batch: list[Showing] = []
    pictures = 0
    for showing in showings:
        batch.append(showing)
        pictures += task(showing[1][0].task).frames
        if pictures >= together:
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
