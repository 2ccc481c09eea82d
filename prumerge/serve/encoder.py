"""Pictures of many requests, encoded and decided together; each once, and the latest remembered."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor

from prumerge.errors import PrumergeError
from prumerge.generate.stopwatch import Stopwatch
from prumerge.models import device_of
from prumerge.pipeline.decide import Decision
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.reducer import Placed, Reducer
from prumerge.serve.asked import Asked
from prumerge.serve.cache import Cache
from prumerge.serve.host import Host
from prumerge.serve.metrics import Metrics
from prumerge.serve.pictures import Picture
from prumerge.serve.prompts import is_plain
from prumerge.serve.reduced import Reduced, Row, Took
from prumerge.serve.waiting import Waiting
from prumerge.tokens import VisualTokens

LOOKED_AT = 4
"""Pictures whose visual tokens are remembered, before any reduction, for who looks at what methods keep."""


@dataclass(eq=False)
class _Job:
    """A row to be made, and how many wait for it."""

    key: Hashable
    pictures: Sequence[Picture]
    text: str
    pipelines: Sequence[Pipeline]
    future: asyncio.Future[Row]
    looks: bool
    """Whether somebody looks at what is decided, and will again with another method or budget."""
    waiting: int = 0

    @property
    def tower(self) -> Reducer | None:
        """What its pipelines do inside the vision tower."""
        return self.pipelines[0].placed.tower

    @property
    def shown(self) -> Hashable:
        """What the vision tower is shown, and how it merges."""
        return tuple(one.digest for one in self.pictures), self.text, str(self.tower)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the vision tower saw in the pictures of a row."""

    pictures: Sequence[VisualTokens]
    prompt: Prompt
    plain: bool


Made: TypeAlias = Row | Exception
_Made: TypeAlias = tuple[Decision, Tensor, Took]
"""What a method decided of a picture, the embeddings of what is left, and what both took."""


class Encoder:
    """Pictures in, what is left of them out, from `start` to `stop`."""

    def __init__(self, host: Host, metrics: Metrics, *, batch: int, seconds: float, cache: int) -> None:
        """Up to `batch` rows are encoded together, for which each waits so many seconds; `cache` bytes of
        embeddings are remembered."""
        self.host, self.metrics = host, metrics
        self.cache: Cache[Row] = Cache(cache)
        self._seen: OrderedDict[Hashable, _Seen] = OrderedDict()  # of the model's thread
        self._flying: dict[Hashable, _Job] = {}
        self._queue: Waiting[_Job] = Waiting(batch, seconds, lambda job: 0)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._flying

    async def reduce(self, asked: Asked) -> list[Reduced]:
        """What is left of a question's pictures, in order, as `steps` has it."""
        [found] = await self.steps(asked, [asked.pipeline])
        return found

    async def steps(self, asked: Asked, pipelines: Sequence[Pipeline]) -> list[list[Reduced]]:
        """What each of several pipelines leaves of a question's pictures, which are encoded once for all; the
        pipelines do the same inside the vision tower. Raises PrumergeError as `Pipeline` does.

        Whoever leaves meanwhile takes nothing from others that wait for the same picture.
        """
        rows = await self._rows(asked, pipelines)
        return [[one for row in rows for one in row.steps[step]] for step in range(len(pipelines))]

    async def look(self, asked: Asked) -> list[tuple[Decision, Took]]:
        """What is decided of a question's pictures, in order, and what it took. Raises as `reduce` does.

        The vision tower's view of the pictures looked at last is remembered, for other methods and budgets.
        """
        return [
            (decision, one.took)
            for row in await self._rows(asked, [asked.pipeline], looks=True)
            for decision, one in zip(row.decisions, row.steps[0], strict=True)
        ]

    async def _rows(self, asked: Asked, pipelines: Sequence[Pipeline], *, looks: bool = False) -> list[Row]:
        reads = any("text" in part.needs for one in pipelines for part in one.method.parts)
        reads = reads or any(one.options.relevance is not None for one in pipelines)
        count = len(asked.pictures)
        rows: list[tuple[Sequence[Picture], str]]
        if reads or self._family_reads:
            rows = [(asked.pictures, asked.text)] if count else []
        elif count > 1 and not self.host.apart:
            rows = [(asked.pictures, self.host.nothing(count))]
        else:
            rows = [((one,), self.host.nothing()) for one in asked.pictures]
        return await asyncio.gather(*(self._row(pictures, text, pipelines, looks) for pictures, text in rows))

    @property
    def _family_reads(self) -> bool:
        from prumerge.models import family_of

        return family_of(self.host.model.config.model_type).reads_text

    async def _row(
        self, pictures: Sequence[Picture], text: str, pipelines: Sequence[Pipeline], looks: bool
    ) -> Row:
        methods = tuple(_decided_by(one.placed) for one in pipelines)
        key = (tuple(one.digest for one in pictures), text, methods, str(self.host.dtype), looks)
        if not looks and (known := self.cache.get(key)) is not None:
            self.metrics.pictures.labels("remembered").inc(len(pictures))
            return known
        job = self._flying.get(key)
        if job is None:
            job = _Job(key, pictures, text, pipelines, asyncio.get_running_loop().create_future(), looks)
            self._flying[key] = job
            self._queue.put(job)
        else:
            self.metrics.pictures.labels("joined").inc(len(pictures))
        job.waiting += 1
        try:
            return await asyncio.shield(job.future)
        finally:
            job.waiting -= 1

    async def _work(self) -> None:
        while True:  # without a name for the batch, which would be held until the next one comes
            await self._finish(self._wanted(await self._queue.take()))

    def _wanted(self, taken: list[_Job]) -> list[_Job]:
        """Jobs that somebody waits for; the others are dropped."""
        for job in taken:
            if not job.waiting:  # all who wanted it have left
                del self._flying[job.key]
                job.future.cancel()
        return [job for job in taken if job.waiting]

    async def _finish(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        since = time.perf_counter()
        try:
            made: list[Made] = await self.host.run(self._made, jobs)
        except Exception as error:
            made = [error] * len(jobs)
        self.metrics.seconds.labels("encode").observe(time.perf_counter() - since)
        self.metrics.batch.labels("pictures").observe(sum(len(job.pictures) for job in jobs))
        for job, one in zip(jobs, made, strict=True):
            del self._flying[job.key]
            if isinstance(one, Exception):
                job.future.set_exception(one)
                job.future.exception()  # seen, also where all have left
            else:
                if not job.looks:
                    self.metrics.pictures.labels("encoded").inc(len(job.pictures))
                    self.cache.put(job.key, one.remembered())
                job.future.set_result(one)

    def _made(self, jobs: list[_Job]) -> list[Made]:
        """Rows of jobs, in the model's thread; where one cannot be made, the others are."""
        try:
            return self._together(jobs)
        except PrumergeError as error:
            if len(jobs) == 1:
                return [error]
            return [one for job in jobs for one in self._made([job])]

    def _together(self, jobs: list[_Job]) -> list[Made]:
        """Rows of jobs: the vision tower sees each picture once for all methods that leave it alone."""
        rows: dict[_Job, Row] = {}
        watch = Stopwatch(device_of(self.host.model))
        for tower in dict.fromkeys(job.tower for job in jobs):
            own = [job for job in jobs if job.tower == tower]
            seen, encode_ms = self._encoded(own, watch)
            made: dict[tuple[_Job, Reducer], list[_Made]] = {}
            pipelines = {pipeline.method: pipeline for job in own for pipeline in job.pipelines}
            for method, pipeline in pipelines.items():
                alike = [job for job in own if any(one.method == method for one in job.pipelines)]
                watch.lap()
                decisions = pipeline.decide([one for job in alike for one in seen[job.shown].pictures])
                reduce_ms = watch.lap()
                embeddings = pipeline.project(seen[alike[0].shown].prompt, decisions)
                took = Took(watch.lap(), reduce_ms, remembered=not encode_ms)
                each = iter(zip(decisions, embeddings, strict=True))
                for job in alike:
                    made[job, method] = [(*next(each), took) for _ in seen[job.shown].pictures]
            for job in own:
                rows[job] = _row_of(job, [made[job, one.method] for one in job.pipelines], seen, encode_ms)
        return [rows[job] for job in jobs]

    def _encoded(self, jobs: list[_Job], watch: Stopwatch) -> tuple[dict[Hashable, _Seen], float]:
        """What the tower sees for jobs in which it works alike, by what each shows it, and the milliseconds
        that it took."""
        known = {job.shown: self._seen[job.shown] for job in jobs if job.shown in self._seen}
        new = list({job.shown: job for job in jobs if job.shown not in known}.values())
        seen, encode_ms = known, 0.0
        if new:
            texts = [job.text for job in new]
            prompt = self.host.prompt([[one.image for one in job.pictures] for job in new], texts)
            watch.lap()
            pictures = new[0].pipelines[0].encode(prompt)
            encode_ms = watch.lap()
            rows = prompt.rows([one.placeholders for one in pictures])
            each = [
                [one for one, own in zip(pictures, rows, strict=True) if own == row]
                for row in range(len(new))
            ]
            counts = [[one.placeholders for one in own] for own in each]
            plain = is_plain(self.host.processor, prompt, texts, counts)
            seen = known | {job.shown: _Seen(own, prompt, plain) for job, own in zip(new, each, strict=True)}
        for job in jobs:
            if job.looks:
                self._seen[job.shown] = seen[job.shown]
                self._seen.move_to_end(job.shown)
        while len(self._seen) > LOOKED_AT:
            self._seen.popitem(last=False)
        return seen, encode_ms


def _row_of(
    job: _Job, steps: Sequence[Sequence[_Made]], seen: Mapping[Hashable, _Seen], encode_ms: float
) -> Row:
    """What each step leaves; the milliseconds of encoding, which all share, count for the first."""
    plain, left = seen[job.shown].plain, []
    for number, step in enumerate(steps):
        encode = encode_ms if not number else 0.0
        left.append(
            tuple(
                # What is no clone would keep the batch alive.
                Reduced(decision.left(), one.clone(), plain, replace(took, encode=took.encode + encode))
                for decision, one, took in step
            )
        )
    return Row(tuple(left), tuple(decision for decision, *_ in steps[0]) if job.looks else ())


def _decided_by(placed: Placed) -> tuple[str, ...]:
    """What a method decides about a picture by itself, to know it again."""
    return str(placed.tower), str(placed.before), str(placed.prefix)
