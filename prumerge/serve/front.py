"""From the bytes of a request to an answer: everything but HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx2

from prumerge.serve.asked import Allowed, Asked, asked
from prumerge.serve.encoder import Encoder
from prumerge.serve.engine import Engine
from prumerge.serve.envelope import Chat, ImageUrl, read
from prumerge.serve.host import Host
from prumerge.serve.limits import Budget, Limits
from prumerge.serve.metrics import Metrics
from prumerge.serve.pictures import File, Picture, file_of, from_data
from prumerge.serve.refusal import Refusal
from prumerge.serve.remote import fetch


@dataclass
class Front:
    """One served model."""

    name: str
    """By which clients ask for it."""
    host: Host
    encoder: Encoder
    engine: Engine
    allowed: Allowed
    limits: Limits
    metrics: Metrics
    key: str | None = field(default=None, repr=False)
    """What clients must know to be answered; None: nothing."""
    remote: bool = False
    """Whether pictures on the web are fetched."""
    page: bool = True
    """Whether there is a page to look at."""
    frames: str = ""
    """Sites that may show it in a frame of theirs, separated by blanks."""
    held: int = 0
    """Requests that are being answered."""

    def __post_init__(self) -> None:
        self.bytes = Budget(self.limits.held_bytes, "requests")
        self.pixels = Budget(self.limits.held_pixels, "pictures")
        self._started = False
        self._web = httpx2.AsyncClient(trust_env=False)

    async def start(self) -> None:
        """Get ready, once. Raises PrumergeError where the engine cannot serve the model."""
        if self._started:
            return
        self._started = True
        self.encoder.start()
        try:
            await self.engine.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        await self.engine.stop()
        self.encoder.stop()
        await self._web.aclose()
        self.host.close()

    def read(self, raw: bytes | bytearray) -> Chat:
        """A request, checked as far as it can be without its pictures. Raises Refusal."""
        chat = read(raw, self.limits)
        if chat.model != self.name:
            raise Refusal(
                f"there is no model of this name here; ask for {self.name!r}",
                404,
                param="model",
                code="model_not_found",
            )
        self.engine.check(chat)
        return chat

    async def asked(self, chat: Chat, held: ExitStack) -> Asked:
        """The question of a request, its pictures decoded; their pixels are counted until `held` is closed.

        Raises PrumergeError for pictures that are none or too large, and what `Allowed` and `asked` refuse.
        """
        pipeline = self.allowed.pipeline(chat)
        parts = [part for message in chat.messages for part in message.parts()]
        urls = [part.image_url.url for part in parts if isinstance(part, ImageUrl)]
        contents = [await self._content(url) for url in urls]
        files = await asyncio.to_thread(lambda: [file_of(content) for content in contents])
        pixels = sum(file.pixels for file in files)
        if pixels > self.limits.pixels:
            raise Refusal(
                f"the pictures have {pixels / 1e6:.0f} megapixels; send at most "
                f"{self.limits.pixels / 1e6:.0f}, the model looks at a few hundred pixels a side",
                413,
                code="image_too_large",
            )
        held.enter_context(self.pixels.take(pixels))
        pictures = await asyncio.to_thread(_decoded, files)
        return asked(self.host, chat, pictures, pipeline, self.limits.tokens)

    async def _content(self, url: str) -> bytes:
        """The file that an image_url is, or leads to."""
        if not url[:8].lower().startswith(("http://", "https://")):
            return await asyncio.to_thread(from_data, url, self.limits)
        if self.remote:
            return await fetch(self._web, url, self.limits)
        raise Refusal(
            "pictures on the web are not fetched here; send them as data URLs (data:image/png;base64,...)",
            code="invalid_image_url",
        )


def _decoded(files: Sequence[File]) -> list[Picture]:
    return [file.picture() for file in files]
