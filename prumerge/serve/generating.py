"""One batch of questions on its way through `generate`: tokens go out as they come, rows end one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from prumerge.generate.watcher import Watcher
from prumerge.serve.asked import Asked
from prumerge.serve.reduced import Reduced


class Row:
    """One question while it is answered. All but `over` belongs to the event loop's thread."""

    def __init__(
        self,
        asked: Asked,
        pictures: Sequence[Reduced],
        ends: frozenset[int],
        least: float | None = None,
    ) -> None:
        """With `least` it is watched how sure the model is, and an answer that is less probable is not
        written to its end."""
        self.asked, self.pictures, self.ends, self.least = asked, pictures, ends, least
        self.most = asked.most
        """Tokens of the longest answer that fits."""
        self.prompt = 0
        """Tokens of the prompt, once it is known."""
        self.kept: float | None = None
        """Visual tokens on average over the layers, where they are pruned there."""
        self.count = 0
        """Tokens that came."""
        self.probability = 1.0
        """Of what came, where it is watched."""
        self.ended = False
        """Whether the model itself came to an end."""
        self.over = False
        """Whether no more tokens are wanted."""
        self._tokens: asyncio.Queue[int | Exception | None] = asyncio.Queue()

    def add(self, token: int, probability: float = 1.0) -> None:
        """One more token of the answer, and how probable it was."""
        if self.over:
            return
        self.count += 1
        self.probability *= probability
        self.ended = token in self.ends
        self._tokens.put_nowait(token)
        doubted = self.least is not None and self.probability < self.least
        if self.ended or doubted or self.count == self.most:
            self.close()

    def close(self, error: Exception | None = None) -> None:
        """No token follows; with an error because of it."""
        if not self.over:
            self.over = True
            self._tokens.put_nowait(error)

    async def next(self) -> int | None:
        """The next token; None behind the last. Raises what the row was closed with."""
        token = await self._tokens.get()
        if isinstance(token, Exception):
            raise token
        return token


class Streamer(BaseStreamer):
    """Hands the tokens of each step to their rows, in the event loop's thread."""

    def __init__(
        self,
        rows: Sequence[Row],
        loop: asyncio.AbstractEventLoop,
        read: Callable[[], None],
        watcher: Watcher | None,
    ) -> None:
        """`read` is called when the prompts were read, before the first tokens are handed on."""
        self.rows, self.loop, self.read, self.watcher = rows, loop, read, watcher
        self._steps = 0

    def put(self, value: Int[Tensor, "..."]) -> None:
        """Transformers hands over the prompts first, then a token of each row."""
        if self._steps == 1:
            self.read()
        if self._steps:
            sure = [1.0] * len(self.rows) if self.watcher is None else self.watcher.last.exp().tolist()
            self.loop.call_soon_threadsafe(self._hand, value.tolist(), sure)
        self._steps += 1

    def end(self) -> None:
        """Rows are closed by whoever made them."""

    def _hand(self, tokens: list[int], sure: list[float]) -> None:
        for row, token, probability in zip(self.rows, tokens, sure, strict=True):
            row.add(token, probability)


class Ends(StoppingCriteria):
    """Rows whose answers are long enough, or that nobody waits for."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.count = 0

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: Any, **_: Any) -> Bool[Tensor, "B"]:
        self.count += 1
        done = [row.over or self.count >= row.most for row in self.rows]
        return torch.tensor(done, device=input_ids.device)
