"""Requests that are none, of every kind, for `faults.py`."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

from prumerge.tiny import samples

Body: TypeAlias = bytes | Callable[[], AsyncIterator[bytes]]
PICTURE = samples()[0].path.read_bytes()
WRONG: list[Any] = [None, True, 0, -1, 1.5, 10**400, "x", "", [], {}, [[]], {"a": 1}, [None], "\ud800"]


def malformed(count: int, slow: int, seed: int = 0) -> Iterator[tuple[str, Body]]:
    """`count` bodies with the kind of each, `slow` of them such that never arrive."""
    chance = random.Random(seed)
    kinds = [cut_base64, cut_picture, no_picture, bomb, wrong_type, huge, deep, cut_json, noise, no_url]
    for number in range(count - slow):
        kind = kinds[number % len(kinds)]
        yield kind.__name__, kind(chance)
    for _ in range(slow):
        yield "slow", drips


def asks(url: Any, **more: Any) -> bytes:
    """A question about a picture at a URL."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is there?"}]
    return json.dumps(
        {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": content}], **more}
    ).encode()


def data_url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def cut_base64(chance: random.Random) -> bytes:
    url = data_url(PICTURE).rstrip("=")
    end = chance.randrange(30, len(url))
    return asks(url[: end - (end - url.index(",") - 1) % 4 - 3])


def cut_picture(chance: random.Random) -> bytes:
    return asks(data_url(PICTURE[: chance.randrange(0, len(PICTURE) * 9 // 10)]))


def no_picture(chance: random.Random) -> bytes:
    heads = [
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\xff\xd8\xff\xe0",
        b"RIFF\0\0\0\0WEBP",
        b"BM",
        b"%PDF-1.4",
        b"",
    ]
    return asks(data_url(chance.choice(heads) + chance.randbytes(chance.randrange(2000))))


def bomb(chance: random.Random) -> bytes:
    """A small file that says it is a huge picture: a PNG, or a GIF or BMP by its header alone."""
    side = chance.randrange(9_000, 60_000)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packed = zlib.compress(bytes(10**6))
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", packed)
    )
    gif = b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b"," + bytes(20)
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return asks(data_url(chance.choice([png, gif, bmp])))


def wrong_type(chance: random.Random) -> bytes:
    """A good question, one of whose fields has another type."""
    good = json.loads(asks(data_url(PICTURE)))
    message = good["messages"][0]
    holders: list[tuple[Any, Any]] = [
        (good, "messages"), (message, "role"), (message["content"][0], "type"),
        (message["content"][0], "image_url"), (message["content"][0]["image_url"], "url"),
        (message["content"][1], "text"), (good, "model"),
    ]  # fmt: skip
    holder, name = chance.choice(holders)
    wrong = [value for value in WRONG if not (name == "text" and isinstance(value, str))]
    holder[name] = chance.choice([value for value in wrong if (name, value) != ("messages", None)])
    return json.dumps(good).encode()


def huge(chance: random.Random) -> Body:
    """More than a server takes, said or not said beforehand, or numbers and texts without end."""
    if chance.random() < 0.1:
        return b" " * (33 * 2**20)
    if chance.random() < 0.1:
        return endless
    return chance.choice([
        asks(data_url(PICTURE), max_tokens=-(10**30)), asks(data_url(PICTURE), seed=10**30),
        asks(data_url(PICTURE), stop=["x"] * 1000), asks(data_url(PICTURE), n=10**9),
        asks(data_url(PICTURE), temperature=1e300), asks(data_url(PICTURE), keep=10**9),
        asks(data_url(PICTURE), reducer="prumerge+" * 10**4),
        json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "star " * 10**5}]}).encode(),
        json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "x"}] * 10**4}).encode(),
        b'{"model": "tiny", "max_tokens": ' + b"9" * 10**6 + b"}",
    ])  # fmt: skip


def deep(chance: random.Random) -> bytes:
    depth = chance.choice([200, 5_000, 10**6])
    opens = chance.choice([b"[", b'{"a":'])
    good = asks(data_url(PICTURE), x=0)
    return chance.choice([opens * depth, good.replace(b'"x": 0', b'"x": ' + opens * depth)])


def cut_json(chance: random.Random) -> bytes:
    good = asks(data_url(PICTURE))
    return good[: chance.randrange(len(good))]


def noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(5000))


def no_url(chance: random.Random) -> bytes:
    urls = [
        "file:///etc/passwd",
        "http://169.254.169.254/",
        "ftp://x/y",
        "data:,x",
        "data:image/png,xx",
        "//x",
    ]
    return asks(chance.choice(urls))


async def endless() -> AsyncIterator[bytes]:
    for _ in range(40):
        yield b" " * 2**20


async def drips() -> AsyncIterator[bytes]:
    """A body that comes a byte at a time, for longer than anybody waits."""
    for byte in asks(data_url(PICTURE))[:45]:
        yield bytes([byte])
        await asyncio.sleep(1)
