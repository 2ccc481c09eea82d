"""Answers under a guard: from few visual tokens where the model is sure, and from more where it is not."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prumerge.generate.guarded import Guard, check_weights, shift
from prumerge.pipeline.reduce import Pipeline
from prumerge.serve.answers import Chunks, joined, milliseconds, usage, visual
from prumerge.serve.asked import Allowed, Asked
from prumerge.serve.encoder import Encoder
from prumerge.serve.engine import Attempt, Engine
from prumerge.serve.envelope import Chat, ImageUrl
from prumerge.serve.local import LABELS, NOTHING
from prumerge.serve.metrics import Metrics
from prumerge.serve.reduced import Reduced
from prumerge.serve.refusal import Refusal
from prumerge.serve.words import Words

log = logging.getLogger("prumerge.serve")
UNTOUCHED = "untouched"


@dataclass(frozen=True)
class _Try:
    """What one step said to a question."""

    step: str
    pictures: Sequence[Reduced]
    attempt: Attempt

    def told(self) -> dict[str, Any]:
        """As `usage` has it."""
        return {
            "step": self.step,
            "probability": round(self.attempt.probability, 6),
            "visual_tokens": visual(self.pictures)["visual_tokens_kept"],
            "prompt_tokens": self.attempt.prompt,
            "completion_tokens": len(self.attempt.tokens),
        }


class Cascade:
    """An engine whose answers about pictures are under a guard, unless a request names a method."""

    def __init__(
        self, engine: Engine, encoder: Encoder, metrics: Metrics, allowed: Allowed, guard: Guard
    ) -> None:
        """Raises PrumergeError for a guard that was found on other weights."""
        check_weights(guard, encoder.host.model)
        self.engine, self.encoder, self.metrics, self.guard = engine, encoder, metrics, guard
        self.names = [*guard.steps, UNTOUCHED]
        self.pipelines = [Pipeline(step, allowed.options) for step in (*guard.steps, "none")]
        self.asked = self.untouched = 0
        self._warned = False

    async def start(self) -> None:
        await self.engine.start()
        log.info("what is %.4f probable is an answer: %s", self.guard.threshold, ", ".join(self.names))

    async def stop(self) -> None:
        await self.engine.stop()

    async def ready(self) -> bool:
        return await self.engine.ready()

    def check(self, chat: Chat) -> None:
        self.engine.check(chat)
        shown = any(isinstance(part, ImageUrl) for message in chat.messages for part in message.parts())
        if not (shown and _unnamed(chat)):
            return
        more = (name for name, value in chat.more.items() if name not in LABELS)
        asks = [name for name in more if chat.more[name] not in NOTHING.get(name, ())]
        asks += [
            name
            for name, given in (("temperature", chat.temperature), ("n", chat.n not in (None, 1)))
            if given
        ]
        if asks:
            raise Refusal(
                f"answers under a guard are the model's likeliest, without {asks[0][:40]!r}; leave it out, "
                "or name a reducer to be answered without the guard",
                param=asks[0][:40],
                code="unsupported_parameter",
            )

    async def attempt(self, asked: Asked, pictures: Sequence[Reduced], least: float) -> Attempt:
        return await self.engine.attempt(asked, pictures, least)

    async def whole(self, asked: Asked) -> dict[str, Any]:
        if not self._guards(asked):
            return await self.engine.whole(asked)
        return joined(list(self._told(asked, await self._tries(asked))))

    async def stream(self, asked: Asked) -> AsyncGenerator[dict[str, Any], None]:
        if not self._guards(asked):
            async for chunk in self.engine.stream(asked):
                yield chunk
            return
        for chunk in self._told(asked, await self._tries(asked)):
            yield chunk

    def _guards(self, asked: Asked) -> bool:
        return bool(asked.pictures) and _unnamed(asked.chat)

    async def _tries(self, asked: Asked) -> list[_Try]:
        """Every step that was asked; the last one answers. The pictures are encoded once for all of them."""
        each = await self.encoder.steps(asked, self.pipelines)
        most = self.guard.max_new_tokens  # also for who wants less: a shorter answer is more probable
        tries: list[_Try] = []
        for name, pipeline, pictures in zip(self.names, self.pipelines, each, strict=True):
            least = 0.0 if name == UNTOUCHED else self.guard.threshold
            question = replace(asked, pipeline=pipeline, most=most)
            tries.append(_Try(name, pictures, await self.engine.attempt(question, pictures, least)))
            if tries[-1].attempt.probability >= least:
                break
        self._count(tries[-1].step)
        return tries

    def _count(self, step: str) -> None:
        self.metrics.guarded.labels(step).inc()
        self.asked += 1
        self.untouched += step == UNTOUCHED
        if not self._warned and (said := shift(self.guard, self.asked, self.untouched)):
            self._warned = True
            log.warning(said)

    def _told(self, asked: Asked, tries: Sequence[_Try]) -> Iterator[dict[str, Any]]:
        """OpenAI's chunks of the answer; what was counted is of all steps together, since that is what it
        cost, and then of each."""
        given = tries[-1].attempt.tokens
        words, chunks, first = Words(self.encoder.host.words, asked.chat.stops), Chunks(), True
        for token in given[: asked.most]:
            new = words.add(token)
            if new or first:
                yield chunks.words(new, first=first)
            first = False
            if words.stopped:
                break
        ended = len(given) <= asked.most and given[-1] in self.encoder.host.ends
        reason = "stop" if words.stopped or ended else "length"
        yield chunks.words("" if words.stopped else words.rest(), first=first, reason=reason)
        told = [one.told() for one in tries]
        seen = visual(tries[-1].pictures, sum(one["visual_tokens"] for one in told))
        seen |= milliseconds([one for each in tries for one in each.pictures])
        prompt, answer = (sum(one[name] for one in told) for name in ("prompt_tokens", "completion_tokens"))
        under = {"answered_by": tries[-1].step, "threshold": self.guard.threshold, "tries": told}
        yield chunks.counted({**usage(prompt, answer, seen), "guard": under})


def _unnamed(chat: Chat) -> bool:
    """Whether a request leaves the method to the server."""
    return chat.reducer is None and chat.keep is None
