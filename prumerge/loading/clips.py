"""Frames of a clip: a folder of pictures, an animation (GIF, APNG, WebP, AVIF), a video file with PyAV."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile
from PIL.Image import Transpose

from prumerge.errors import MissingPackage, PrumergeError
from prumerge.loading.images import as_rgb, check_size, decoding, frame, open_image, opened
from prumerge.loading.paths import existing, first_line, shown

FRAMES = 8
VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".flv", ".ogv", ".wmv"),
)
# Formats whose files hold frames one after the other; what other formats hold beside the picture is a smaller
# one (MPO), a layer (PSD) or another size (ICO).
_ANIMATED = ("AVIF", "FLI", "GIF", "PNG", "TIFF", "WEBP")
# Formats that Pillow lists, of which a file in a folder of frames is no frame.
_NO_FRAMES = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF")
_NEEDS_MORE = (".heic", ".heif")  # than Pillow alone: frames all the same, refused and not left out
# A video's display matrix (a, b, c, d: x' = ax + cy, y' = bx + dy) by its signs: what turns a frame upright.
_TURNS = {
    (-1, 0, 0, 1): Transpose.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): Transpose.ROTATE_180,
    (1, 0, 0, -1): Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Transpose.TRANSPOSE,
    (0, 1, -1, 0): Transpose.ROTATE_270,
    (0, -1, -1, 0): Transpose.TRANSVERSE,
    (0, -1, 1, 0): Transpose.ROTATE_90,
}


def open_clip(path: str | os.PathLike[str], frames: int = FRAMES) -> list[Image.Image]:
    """`frames` pictures as `open_image` returns them, evenly from the first to the last of a clip; all of a
    shorter one.

    `path` is a folder of pictures (in the order of their names, numbers in them counted as numbers), an
    animation, or a video file, which needs PyAV. Raises PrumergeError, saying what is wrong with the file,
    and MissingPackage, saying how to install it, without PyAV.
    """
    found = existing(path, "clip")
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
        raise PrumergeError(f"a clip has at least one frame, not {frames}")
    if found.is_dir():
        files = pictures_in(found)
        return [open_image(files[place]) for place in evenly(len(files), frames)]
    if found.suffix.lower() in VIDEOS:
        return _video(found, frames)
    with opened(found) as file:
        places = places_of(file, shown(found))
        return [frame(file, shown(found), places[one]) for one in evenly(len(places), frames)]


def evenly(available: int, wanted: int) -> list[int]:
    """`wanted` places of `available`, the first and the last among them."""
    if available <= wanted:
        return list(range(available))
    if wanted == 1:
        return [0]
    return [round(step * (available - 1) / (wanted - 1)) for step in range(wanted)]


def places_of(file: ImageFile.ImageFile, name: str) -> list[int]:
    """Where the frames are in an open file; one place where it is no animation.

    An APNG's default image, for viewers that show no animations, is not among them.
    """
    if file.format not in _ANIMATED:
        return [0]
    with decoding(name):
        count = getattr(file, "n_frames", 1)
    first = 1 if getattr(file, "default_image", False) and count > 1 else 0
    return list(range(first, count))


def pictures_in(folder: Path) -> list[Path]:
    """The files in a folder that are pictures by their names, in the order of these.

    Raises PrumergeError for a folder that cannot be read, or holds none.
    """
    try:
        files = sorted(
            (file for file in folder.iterdir() if _is_frame(file)),
            key=lambda file: (_by_number(file), file.name),
        )
    except OSError as error:
        raise PrumergeError(f"the folder {shown(folder)} cannot be read ({first_line(error)})") from None
    if not files:
        raise PrumergeError(f"the folder {shown(folder)} holds no pictures")
    return files


def _is_frame(file: Path) -> bool:
    """Whether a file's name is a picture's: no hidden one, as systems put beside the frames."""
    kind = Image.registered_extensions().get(file.suffix.lower())
    is_picture = kind in Image.OPEN and kind not in _NO_FRAMES
    return (
        (is_picture or file.suffix.lower() in _NEEDS_MORE)
        and not file.name.startswith(".")
        and not file.is_dir()
    )


def _by_number(file: Path) -> list[tuple[int, str]]:
    """frame-2 comes before frame-10."""
    parts = re.split(r"(\d+)", file.name.casefold())  # every second one is a number
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)]


def _video(path: Path, frames: int) -> list[Image.Image]:
    try:
        import av
    except ModuleNotFoundError:
        raise MissingPackage(
            "video files need PyAV; install it with: pip install 'prumerge[video]', or pass a GIF or a "
            "folder of pictures"
        ) from None
    try:
        with av.open(str(path.resolve())) as container:
            stream = container.streams.video[0]
            check_size((stream.width, stream.height), shown(path))
            claimed = stream.frames
            places = evenly(claimed, frames)
            pictures = [_upright(one) for one in _at(container.decode(stream), places)]
        if not pictures or len(pictures) < len(
            places
        ):  # headers may claim more frames than there are, or none
            with av.open(str(path.resolve())) as container:
                count = sum(1 for _ in container.decode(video=0))
            with av.open(str(path.resolve())) as container:
                pictures = [_upright(one) for one in _at(container.decode(video=0), evenly(count, frames))]
    except IndexError:
        raise PrumergeError(f"{shown(path)} holds no video") from None
    except av.FFmpegError as error:
        raise PrumergeError(f"{shown(path)} is no video that can be read ({first_line(error)})") from None
    if not pictures:
        raise PrumergeError(f"{shown(path)} is a video without frames")
    return pictures


def _at(decoded: Iterator[Any], places: list[int]) -> Iterator[Any]:
    """The frames at these places, decoded no further than to the last of them."""
    wanted = set(places)
    for place, one in enumerate(decoded if places else ()):
        if place in wanted:
            yield one
        if place >= places[-1]:
            return


def _upright(decoded: Any) -> Image.Image:
    """A frame as a player shows it, turned by the video's display matrix."""
    picture = as_rgb(decoded.to_image())
    matrix = decoded.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    a, b, _, c, d, *_ = np.sign(np.frombuffer(matrix, np.int32)).tolist()
    turn = _TURNS.get((a, b, c, d))
    return picture if turn is None else picture.transpose(turn)
