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

from prumerge.serve.asked import Asked
from prumerge.serve.reduced import Reduced


class Row:
    """One question while it is answered. All but `over` belongs to the event loop's thread."""

    def __init__(self, asked: Asked, pictures: Sequence[Reduced], ends: frozenset[int]) -> None:
        self.asked, self.pictures, self.ends = asked, pictures, ends
        self.most = asked.most
        """Tokens of the longest answer that fits."""
        self.prompt = 0
        """Tokens of the prompt, once it is known."""
        self.kept: float | None = None
        """Visual tokens on average over the layers, where they are pruned there."""
        self.count = 0
        """Tokens that came."""
        self.ended = False
        """Whether the model itself came to an end."""
        self.over = False
        """Whether no more tokens are wanted."""
        self._tokens: asyncio.Queue[int | Exception | None] = asyncio.Queue()

    def add(self, token: int) -> None:
        """One more token of the answer."""
        if self.over:
            return
        self.count += 1
        self.ended = token in self.ends
        self._tokens.put_nowait(token)
        if self.ended or self.count == self.most:
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
        self, rows: Sequence[Row], loop: asyncio.AbstractEventLoop, read: Callable[[], None]
    ) -> None:
        """`read` is called when the prompts were read, before the first tokens are handed on."""
        self.rows, self.loop, self.read = rows, loop, read
        self._steps = 0

    def put(self, value: Int[Tensor, "..."]) -> None:
        """Transformers hands over the prompts first, then a token of each row."""
        if self._steps == 1:
            self.read()
        if self._steps:
            self.loop.call_soon_threadsafe(self._hand, value.tolist())
        self._steps += 1

    def end(self) -> None:
        """Rows are closed by whoever made them."""

    def _hand(self, tokens: list[int]) -> None:
        for row, token in zip(self.rows, tokens, strict=True):
            row.add(token)


class Ends(StoppingCriteria):
    """Rows whose answers are long enough, or that nobody waits for."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.count = 0

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: Any, **_: Any) -> Bool[Tensor, "B"]:
        self.count += 1
        done = [row.over or self.count >= row.most for row in self.rows]
        return torch.tensor(done, device=input_ids.device)
