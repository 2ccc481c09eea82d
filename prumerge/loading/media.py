"""Whatever a user shows: a picture, or the frames of a clip."""

from __future__ import annotations

import os

from PIL import Image

from prumerge.loading.clips import FRAMES, VIDEOS, open_clip, places_of
from prumerge.loading.images import open_image, opened
from prumerge.loading.paths import existing, shown


def open_media(path: str | os.PathLike[str], frames: int = FRAMES) -> Image.Image | list[Image.Image]:
    """A picture, or the list of a clip's frames (at most `frames`, evenly from the first to the last).

    A folder of pictures, a video file, and a GIF, APNG, WebP, AVIF or TIFF file of more than one frame is a
    clip; one with a single frame is a picture. Raises PrumergeError, naming the file and what is wrong with
    it.
    """
    found = existing(path, "picture or clip")
    if found.is_dir() or found.suffix.lower() in VIDEOS:
        return open_clip(found, frames)
    with opened(found) as file:
        moves = len(places_of(file, shown(found))) > 1
    return open_clip(found, frames) if moves else open_image(found)
