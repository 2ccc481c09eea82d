"""Frames of a clip with Pillow alone: a folder of pictures, a GIF, APNG or WebP; video files with PyAV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageSequence, UnidentifiedImageError

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.loading.load import as_rgb, open_image

FRAMES = 8
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".mpg", ".mpeg")


def open_clip(path: str | Path, frames: int = FRAMES) -> list[Image.Image]:
    """`frames` pictures in RGB, evenly from the first to the last of a clip; all of a shorter one.

    `path` is a folder of pictures (in the order of their names, numbers in them counted as numbers), an
    animation, or a video file, which needs PyAV. Raises ValueError, saying what is wrong with the file, and
    ModuleNotFoundError, saying how to install it, without PyAV.
    """
    path = Path(path)
    if frames < 1:
        raise PrumergeError(f"a clip has at least one frame, not {frames}")
    if path.is_dir():
        files = sorted((file for file in path.iterdir() if file.suffix.lower() in PICTURES), key=_by_number)
        if not files:
            raise PrumergeError(f"the folder {str(path)!r} holds no pictures")
        return [open_image(files[place]) for place in evenly(len(files), frames)]
    if not path.is_file():
        raise PrumergeError(f"there is no clip at {str(path)!r}")
    if not path.stat().st_size:
        raise PrumergeError(f"{str(path)!r} is empty")
    return _video(path, frames) if path.suffix.lower() in VIDEOS else _animation(path, frames)


def evenly(available: int, wanted: int) -> list[int]:
    """`wanted` places of `available`, the first and the last among them."""
    if available <= wanted:
        return list(range(available))
    if wanted == 1:
        return [0]
    return [round(step * (available - 1) / (wanted - 1)) for step in range(wanted)]


def _by_number(file: Path) -> list[tuple[int, str]]:
    """frame-2 comes before frame-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def _animation(path: Path, frames: int) -> list[Image.Image]:
    try:
        with Image.open(path) as opened:
            places = set(evenly(getattr(opened, "n_frames", 1), frames))
            shown = enumerate(ImageSequence.Iterator(opened))
            return [as_rgb(frame.copy()) for place, frame in shown if place in places]
    except UnidentifiedImageError:
        raise PrumergeError(f"{str(path)!r} is no animation that Pillow can read (GIF, APNG, WebP)") from None
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise PrumergeError(f"{str(path)!r} is damaged or cut short ({error})") from None


def _video(path: Path, frames: int) -> list[Image.Image]:
    try:
        import av
    except ModuleNotFoundError:
        raise MissingPackage(
            "video files need PyAV; install it with: pip install 'prumerge[video]', or pass a GIF or a "
            "folder of pictures"
        ) from None
    try:
        with av.open(str(path)) as container:
            count = container.streams.video[0].frames or sum(1 for _ in container.decode(video=0))
        with av.open(str(path)) as container:
            return [frame.to_image() for frame in _at(container.decode(video=0), evenly(count, frames))]
    except (av.FFmpegError, IndexError) as error:
        raise PrumergeError(f"{str(path)!r} is no video that can be read ({error})") from None


def _at(decoded: Iterator, places: list[int]) -> Iterator:
    """The frames at these places, decoded no further than to the last of them."""
    wanted = set(places)
    for place, frame in enumerate(decoded):
        if place in wanted:
            yield frame
        if place >= places[-1]:
            return
