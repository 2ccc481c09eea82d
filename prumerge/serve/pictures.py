"""From an image_url to a picture, with its size looked at before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from dataclasses import dataclass, field

from PIL import Image

from prumerge.loading.images import check_size, decoding, frame
from prumerge.serve.limits import Limits
from prumerge.serve.refusal import Refusal

_DATA = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+=-]+)*;base64,")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What is read; Pillow knows more, and decoders that few use are where it breaks."""


@dataclass(frozen=True)
class Picture:
    """A picture as a model is shown it, known by the digest of its file."""

    digest: bytes
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class File:
    """A picture's file, whose header was read."""

    content: bytes = field(repr=False)
    pixels: int

    def picture(self) -> Picture:
        """The picture, decoded. Raises PrumergeError if it is damaged or cut short."""
        with _open(self.content) as image:
            return Picture(hashlib.sha256(self.content).digest(), frame(image, "the picture"))


def file_of(content: bytes) -> File:
    """A picture's file. Raises PrumergeError for what is none, and for a picture that no model is shown."""
    with _open(content) as image:
        check_size(image.size, "the picture")
        return File(content, image.width * image.height)


def from_data(url: str, limits: Limits) -> bytes:
    """The file in a data URL. Raises Refusal for another URL, and for one that is too long or damaged."""
    head = _DATA.match(url, 0, 200)
    if head is None:
        raise Refusal(
            "an image_url is data:image/png;base64,... (or image/jpeg, image/webp, image/gif)",
            code="invalid_image_url",
        )
    length = len(url) - head.end()
    if length * 3 // 4 > limits.picture:
        raise Refusal(
            f"the picture's file has more than {limits.picture // 2**20} MiB; scale it down, the model looks "
            "at a few hundred pixels a side",
            413,
            code="image_too_large",
        )
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(
            "the picture's base64 is damaged or cut short; encode the whole file", code="invalid_base64"
        ) from None


def _open(content: bytes) -> Image.Image:
    with decoding("the picture"):
        return Image.open(io.BytesIO(content), formats=FORMATS)
