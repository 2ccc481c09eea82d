"""What a server takes on: bounds for one request, and for all that it holds at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prumerge.serve.refusal import busy

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds, each far above what a well-meant request needs."""

    body: int = 32 * MIB
    """Bytes of a request."""
    picture: int = 20 * MIB
    """Bytes of a picture's file."""
    pixels: int = 50_000_000
    """Of all pictures of a request."""
    pictures: int = 8
    """In a request."""
    messages: int = 256
    """In a request."""
    characters: int = 200_000
    """Of all text of a request."""
    tokens: int = 1024
    """Of an answer; what is left of the model's context may be less."""
    requests: int = 256
    """Held at once, answered or waiting; one more is told to come again."""
    held_bytes: int = 512 * MIB
    """Of requests that are being read, together."""
    held_pixels: int = 250_000_000
    """Of pictures of all requests that are held."""
    body_seconds: float = 30
    """For a request to arrive."""
    seconds: float = 600
    """For a request to be answered."""


class Budget:
    """So much of something, which requests take parts of while they are held."""

    def __init__(self, most: int, what: str) -> None:
        self.most, self.what, self.taken = most, what, 0

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """`count` while a `with` lasts; raises Refusal (429) where less is left."""
        with self.growing() as take:
            take(count)
            yield

    @contextmanager
    def growing(self) -> Iterator[Callable[[int], None]]:
        """A function that takes more each time it is called, while a `with` lasts; it raises Refusal (429)
        where less is left."""
        own = 0

        def take(count: int) -> None:
            nonlocal own
            if self.taken + count > self.most:
                raise busy(
                    f"the server holds as many {self.what} as it can; send the request again in a while"
                )
            self.taken += count
            own += count

        try:
            yield take
        finally:
            self.taken -= own
