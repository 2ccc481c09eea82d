"""Where the pictures and clips of a row are: checked without being opened, opened when they are needed."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from prumerge.errors import PrumergeError
from prumerge.loading.clips import VIDEOS, evenly, open_clip
from prumerge.loading.images import as_rgb, check_size, decoding, frame, open_image
from prumerge.loading.paths import existing

Source = str | bytes | Image.Image  # a path, what a file holds, or a picture in memory
_IN_BYTES = "a picture in its bytes"


@dataclass(frozen=True)
class Picture:
    """One picture; of an animation its first frame."""

    source: Source

    def check(self) -> None:
        """Raise PrumergeError unless there is a file that holds something."""
        _check(self.source, "picture")

    def open(self) -> list[Image.Image]:
        """The picture alone, as `open_image` returns it. Raises PrumergeError, saying what is wrong."""
        return [_opened(self.source)]


@dataclass(frozen=True)
class Clip:
    """A video, an animation, a folder of frames, or frames one by one."""

    source: str | bytes | tuple[Source, ...]
    frames: int

    def check(self) -> None:
        """Raise PrumergeError unless there are files that hold something."""
        for one in self.source if isinstance(self.source, tuple) else (self.source,):
            _check(one, "clip")

    def open(self) -> list[Image.Image]:
        """`frames` pictures, evenly from the first to the last, all of a shorter clip. Raises PrumergeError,
        saying what is wrong, and MissingPackage for a video file without PyAV."""
        if isinstance(self.source, tuple):
            return [_opened(self.source[place]) for place in evenly(len(self.source), self.frames)]
        if isinstance(self.source, str):
            return open_clip(self.source, self.frames)
        with tempfile.TemporaryDirectory() as folder:  # readers of videos and of animations want a path
            path = Path(folder, "clip" if _is_animation(self.source) else "clip.mp4")
            path.write_bytes(self.source)
            return open_clip(path, self.frames)


def medium(value: Any, folder: str, *, clip: bool, frames: int) -> Picture | Clip:
    """What a row says of one picture or clip: a path, relative to `folder`; {"bytes": ..., "path": ...}; or a
    picture of Pillow's. A list is the frames of a clip.

    A video file and a folder are clips (of `frames` frames) even where a picture is announced, an animation
    is one only where a clip is. Raises PrumergeError for anything else.
    """
    if clip and isinstance(value, list | tuple):
        if not value:
            raise PrumergeError("a clip has no frames")
        return Clip(tuple(_source(one, folder) for one in value), frames)
    source = _source(value, folder)
    if isinstance(source, str) and not clip:
        clip = os.path.splitext(source)[1].lower() in VIDEOS or os.path.isdir(source)
    if not clip:
        return Picture(source)
    return Clip((source,) if isinstance(source, Image.Image) else source, frames)


def _source(value: Any, folder: str) -> Source:
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return bytes(value["bytes"])
    path = value.get("path") if isinstance(value, Mapping) else value
    if isinstance(path, str | os.PathLike):
        text = os.fsdecode(path)
        return text if "://" in text or text.startswith("data:") else os.path.join(folder, text)
    if isinstance(value, Image.Image):
        return value
    raise PrumergeError(
        f"a picture is a path, {{bytes, path}} or a picture of Pillow's, not {type(value).__name__}"
    )


def _check(source: Source, wanted: str) -> None:
    if isinstance(source, bytes) and not source:
        raise PrumergeError(f"the bytes of a {wanted} are empty")
    if isinstance(source, str):
        try:
            if os.path.getsize(source):  # one look at the disk, and the sentences only where it fails
                return
        except (OSError, ValueError):
            pass
        existing(source, wanted)


def _is_animation(data: bytes) -> bool:
    """Whether these bytes are Pillow's to read, and not PyAV's."""
    try:
        with decoding(""), Image.open(io.BytesIO(data)):
            return True
    except PrumergeError:
        return False


def _opened(source: Source) -> Image.Image:
    if isinstance(source, str):
        return open_image(source)
    if isinstance(source, Image.Image):
        check_size(source.size, "a picture in memory")
        return as_rgb(source)
    with decoding(_IN_BYTES):
        file = Image.open(io.BytesIO(source))
    with file:
        return frame(file, _IN_BYTES)
