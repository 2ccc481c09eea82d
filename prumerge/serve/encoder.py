"""Pictures of many requests, encoded and decided together; each once, and the latest remembered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from prumerge.errors import PrumergeError
from prumerge.pipeline.reduce import Pipeline
from prumerge.reducer import Reducer
from prumerge.serve.asked import Asked
from prumerge.serve.cache import Cache
from prumerge.serve.host import Host
from prumerge.serve.metrics import Metrics
from prumerge.serve.pictures import Picture
from prumerge.serve.prompts import is_plain
from prumerge.serve.reduced import Reduced, Row
from prumerge.serve.waiting import Waiting
from prumerge.tokens import VisualTokens


@dataclass(eq=False)
class _Job:
    """A row to be made, and how many wait for it."""

    key: Hashable
    pictures: Sequence[Picture]
    text: str
    pipelines: Sequence[Pipeline]
    future: asyncio.Future[Row]
    waiting: int = 0

    @property
    def tower(self) -> Reducer | None:
        """What its pipelines do inside the vision tower."""
        return self.pipelines[0].placed.tower

    @property
    def shown(self) -> Hashable:
        """What the vision tower is shown."""
        return tuple(one.digest for one in self.pictures), self.text


Made: TypeAlias = Row | Exception


class Encoder:
    """Pictures in, what is left of them out, from `start` to `stop`."""

    def __init__(self, host: Host, metrics: Metrics, *, batch: int, seconds: float, cache: int) -> None:
        """Up to `batch` rows are encoded together, for which each waits so many seconds; `cache` bytes of
        embeddings are remembered."""
        self.host, self.metrics = host, metrics
        self.cache: Cache[Row] = Cache(cache)
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
        made = await asyncio.gather(*(self._row(pictures, text, pipelines) for pictures, text in rows))
        return [[one for row in made for one in row.steps[step]] for step in range(len(pipelines))]

    @property
    def _family_reads(self) -> bool:
        from prumerge.models import family_of

        return family_of(self.host.model.config.model_type).reads_text

    async def _row(self, pictures: Sequence[Picture], text: str, pipelines: Sequence[Pipeline]) -> Row:
        methods = tuple((str(one.placed.tower), str(one.placed.before)) for one in pipelines)
        key = (tuple(one.digest for one in pictures), text, methods, str(self.host.dtype))
        if (known := self.cache.get(key)) is not None:
            self.metrics.pictures.labels("remembered").inc(len(pictures))
            return known
        job = self._flying.get(key)
        if job is None:
            job = _Job(key, pictures, text, pipelines, asyncio.get_running_loop().create_future())
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
        while True:
            taken = await self._queue.take()
            jobs = [job for job in taken if job.waiting]
            for job in taken:
                if not job.waiting:  # all who wanted it have left
                    del self._flying[job.key]
                    job.future.cancel()
            if jobs:
                await self._finish(jobs)

    async def _finish(self, jobs: list[_Job]) -> None:
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
                self.metrics.pictures.labels("encoded").inc(len(job.pictures))
                self.cache.put(job.key, one)
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
        for tower in dict.fromkeys(job.tower for job in jobs):
            own = [job for job in jobs if job.tower == tower]
            shown = list({job.shown: job for job in own}.values())
            images = [[one.image for one in job.pictures] for job in shown]
            prompt = self.host.prompt(images, [job.text for job in shown])
            encoded: dict[Hashable, list[VisualTokens]] = {job.shown: [] for job in shown}
            pictures = own[0].pipelines[0].encode(prompt)
            for picture, row in zip(pictures, prompt.owners(pictures), strict=True):
                encoded[shown[row].shown].append(picture)
            plain = is_plain(
                self.host.processor,
                prompt,
                [job.text for job in shown],
                [[one.placeholders for one in encoded[job.shown]] for job in shown],
            )
            made: dict[tuple[_Job, Reducer], tuple[Reduced, ...]] = {}
            pipelines = {pipeline.method: pipeline for job in own for pipeline in job.pipelines}
            for method, pipeline in pipelines.items():
                alike = [job for job in own if any(one.method == method for one in job.pipelines)]
                decisions = pipeline.decide([one for job in alike for one in encoded[job.shown]])
                embeddings = pipeline.project(prompt, decisions)
                each = iter(
                    [
                        Reduced(decision.left(), part.clone(), plain)  # a part would keep the batch alive
                        for decision, part in zip(decisions, embeddings, strict=True)
                    ]
                )
                for job in alike:
                    made[job, method] = tuple(next(each) for _ in encoded[job.shown])
            for job in own:
                rows[job] = Row(tuple(made[job, one.method] for one in job.pipelines))
        return [rows[job] for job in jobs]
