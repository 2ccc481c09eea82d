"""What stands behind the server: whoever goes on from reduced pictures to an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from prumerge.serve.asked import Asked
from prumerge.serve.envelope import Chat
from prumerge.serve.reduced import Reduced


@dataclass(frozen=True)
class Attempt:
    """What the model says to a question, by its likeliest tokens."""

    tokens: Sequence[int]
    """Of the answer, with the one that ends it."""
    probability: float
    """Of these tokens together."""
    prompt: int
    """Tokens that were read."""


@runtime_checkable
class Engine(Protocol):
    """Answers questions; closing a stream, or cancelling a call, ends the work for it."""

    async def start(self) -> None:
        """Get ready; raises PrumergeError where this model cannot be served."""

    async def stop(self) -> None:
        """Let go of everything."""

    async def ready(self) -> bool:
        """Whether a question would be answered now."""

    def check(self, chat: Chat) -> None:
        """Raise Refusal for a request that asks for what is not done here."""

    def stream(self, asked: Asked) -> AsyncGenerator[dict[str, Any], None]:
        """OpenAI's chunks; of the last one `choices` is empty, and `usage` is what was counted.

        Raises PrumergeError, before the first chunk where it can.
        """

    async def whole(self, asked: Asked) -> dict[str, Any]:
        """OpenAI's whole answer; raises PrumergeError."""

    async def attempt(self, asked: Asked, pictures: Sequence[Reduced], least: float) -> Attempt:
        """The likeliest answer from what is left of the question's pictures; one that is less probable than
        `least` need not be written to its end. Raises PrumergeError."""
