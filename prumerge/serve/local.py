"""The engine in this process: questions are answered in batches, one batch after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LogitsProcessorList

from prumerge.errors import PrumergeError
from prumerge.generate.watcher import Watcher
from prumerge.layers.pruning import average_tokens, pruning
from prumerge.serve.answers import Chunks, joined, usage, visual
from prumerge.serve.asked import Asked
from prumerge.serve.encoder import Encoder
from prumerge.serve.engine import Attempt
from prumerge.serve.envelope import Chat
from prumerge.serve.generating import Ends, Row, Streamer
from prumerge.serve.host import Host
from prumerge.serve.metrics import Metrics
from prumerge.serve.prompts import prompt_of
from prumerge.serve.reduced import Reduced
from prumerge.serve.refusal import Refusal
from prumerge.serve.waiting import Waiting
from prumerge.serve.words import Words

# Fields that change nothing here, and values of others that ask for nothing.
LABELS = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
NOTHING: dict[str, tuple[Any, ...]] = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}


class Local:
    """Answers by the model of this process."""

    def __init__(self, host: Host, encoder: Encoder, metrics: Metrics, *, batch: int, seconds: float) -> None:
        """Up to `batch` questions are answered together, for which each waits so many seconds."""
        self.host, self.encoder, self.metrics = host, encoder, metrics
        self._queue: Waiting[Row] = Waiting(batch, seconds, _kind)
        self._task: asyncio.Task[None] | None = None
        self.held = 0
        """Questions in the batch that is answered now."""

    async def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def ready(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not len(self._queue) and not self.held

    def check(self, chat: Chat) -> None:
        if chat.n not in (None, 1):
            raise Refusal("one answer at a time: leave n out", param="n", code="unsupported_value")
        for name, value in chat.more.items():
            if name not in LABELS and value not in NOTHING.get(name, ()):
                raise Refusal(
                    f"{name[:40]!r} is not done by this server's own engine; leave it out, or serve the "
                    "model by vLLM (prumerge serve --engine URL)",
                    param=name[:40],
                    code="unsupported_parameter",
                )
        for message in chat.messages:
            if message.role == "tool" or (message.model_extra or {}).get("tool_calls"):
                raise Refusal("this server's own engine takes no tools; leave them out", param="messages")

    async def whole(self, asked: Asked) -> dict[str, Any]:
        return joined([chunk async for chunk in self.stream(asked)])

    async def attempt(self, asked: Asked, pictures: Sequence[Reduced], least: float) -> Attempt:
        row = Row(asked, pictures, self.host.ends, least)
        tokens = []
        with self._waiting(row):
            while (token := await row.next()) is not None:
                tokens.append(token)
        return Attempt(tokens, row.probability, row.prompt)

    async def stream(self, asked: Asked) -> AsyncGenerator[dict[str, Any], None]:
        row = Row(asked, await self.encoder.reduce(asked), self.host.ends)
        words, chunks, first = Words(self.host.words, asked.chat.stops), Chunks(), True
        with self._waiting(row):
            while (token := await row.next()) is not None:
                new = words.add(token)
                if new or first:
                    yield chunks.words(new, first=first)
                first = False
                if words.stopped:
                    break
            reason = "stop" if words.stopped or row.ended else "length"
            yield chunks.words("" if words.stopped else words.rest(), first=first, reason=reason)
            yield chunks.counted(usage(row.prompt, row.count, visual(row.pictures, row.kept)))

    @contextmanager
    def _waiting(self, row: Row) -> Iterator[None]:
        """A row is answered while a `with` lasts."""
        self._queue.put(row)
        try:
            yield
        finally:
            row.over = True
            self._queue.discard(row)

    async def _work(self) -> None:
        while True:  # without a name for the batch, which would be held until the next one comes
            await self._answer(await self._queue.take())

    async def _answer(self, rows: list[Row]) -> None:
        """Answer rows together; where one cannot be answered, the others are."""
        rows = [row for row in rows if not row.over]
        if not rows:
            return
        self.held = len(rows)
        self.metrics.batch.labels("questions").observe(len(rows))
        since = time.perf_counter()
        try:
            await self.host.run(self._generate, rows, asyncio.get_running_loop())
            for row in rows:
                row.close()
        except PrumergeError as error:
            if len(rows) == 1:
                rows[0].close(error)
            else:
                for row in rows:
                    await self._answer([row])
        except Exception as error:
            for row in rows:
                row.close(error)
        finally:
            self.held = 0
            self.metrics.seconds.labels("answer").observe(time.perf_counter() - since)

    def _generate(self, rows: list[Row], loop: asyncio.AbstractEventLoop) -> None:
        """Answer rows of one kind, in the model's thread. Raises PrumergeError before the first token."""
        model, pipeline = self.host.model, rows[0].asked.pipeline
        prompt = prompt_of(self.host, [row.asked for row in rows], [row.pictures for row in rows])
        pictures = [one for row in rows for one in row.pictures]
        shorter = dict(prompt.inputs)
        left = [one.left for one in pictures]
        if pictures:
            shorter = pipeline.splice(prompt, left, [one.embeddings for one in pictures])
        _fit(rows, shorter["attention_mask"].sum(1).tolist(), self.host.context)
        layers = pipeline.placed.layers if pictures else None
        watcher = None if rows[0].least is None else Watcher()
        columns = pipeline.columns(prompt, shorter, left)
        with pruning(model, layers, *columns) as inside, _chance(rows[0].asked.chat.seed):

            def read() -> None:
                if layers is not None:
                    each = iter(average_tokens(inside, [len(one) for one in left]))
                    for row in rows:
                        row.kept = sum(next(each) for _ in row.pictures)

            model.generate(
                **shorter,
                **_sampling(rows[0].asked.chat),
                max_new_tokens=max(row.most for row in rows),
                streamer=Streamer(rows, loop, read, watcher),
                logits_processor=LogitsProcessorList([watcher] if watcher else []),
                stopping_criteria=[Ends(rows)],
            )


def _kind(row: Row) -> Hashable:
    """What the rows of a batch have in common."""
    chat, pipeline = row.asked.chat, row.asked.pipeline
    samples = bool(chat.temperature)
    alone = id(row) if samples and chat.seed is not None else None  # a seed is for one answer
    inside = pipeline.placed.layers if row.pictures else None
    step = None if row.least is None else str(pipeline.method)  # those of a guard are of other lengths
    return str(inside), bool(row.pictures), chat.temperature or 0.0, samples and chat.top_p, alone, step


def _sampling(chat: Chat) -> dict[str, Any]:
    """How tokens are chosen: the likeliest one, unless a temperature is asked for."""
    if not chat.temperature:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": chat.temperature, "top_p": chat.top_p or 1.0, "top_k": 0}


@contextmanager
def _chance(seed: int | None) -> Iterator[None]:
    """With a seed, chance of its own."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _fit(rows: list[Row], lengths: list[int], context: int) -> None:
    """Let no answer be longer than fits; PrumergeError for a prompt that leaves it no place."""
    for row, length in zip(rows, lengths, strict=True):
        if length >= context:
            raise Refusal(
                f"the prompt has {length} tokens, and the model reads {context} with its answer; send less",
                code="context_length_exceeded",
            )
        row.prompt, row.most = length, min(row.asked.most, context - length)
