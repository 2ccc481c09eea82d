"""One reader for pictures and frames: RGB, upright, transparency on white, of a size a model can look at."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from prumerge.errors import PrumergeError
from prumerge.loading.paths import existing, first_line, shown

SMALLEST_SIDE, MOST_PIXELS = 14, 100_000_000

# EXIF's orientation: what turns the stored picture upright.
_TURNS: dict[Any, Transpose] = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# How Pillow says that a file is of a kind that it cannot decode here, which does not make the file damaged.
_NOT_HERE = re.compile(
    r"unsupported|not supported|(un|not )implemented|not available|cannot find loader|ghostscript",
    re.IGNORECASE,
)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """A picture from disk in RGB, turned upright, transparency on white; of an animation the first frame.

    Raises PrumergeError, naming the file and what is wrong with it, for anything a model cannot be shown.
    """
    found = existing(path, "picture")
    if found.is_dir():
        raise PrumergeError(f"{shown(found)} is a folder, not a picture")
    with opened(found) as file:
        return frame(file, shown(found))


def as_rgb(image: Image.Image) -> Image.Image:
    """Any picture of Pillow's in RGB, transparency on white.

    Grey of 16 bits is scaled by what 16 bits can hold; grey of 32 bits, integers or floats, by that of 1, 255
    and 65535 which holds it best, or up to its brightest where none does or there are negative values.
    Raises PrumergeError for what is no picture, or one without pixels.
    """
    if not isinstance(image, Image.Image):
        raise PrumergeError(
            f"a picture of Pillow's is needed, not {type(image).__name__}; prumerge.open_image() reads one "
            "from a file"
        )
    if 0 in image.size:
        raise PrumergeError(f"the picture has no pixels: it is {image.width} x {image.height}")
    if type(image) is Image.Image and image.mode == "RGB" and not image.has_transparency_data:
        return image  # in memory already, as it should be
    with decoding(shown(getattr(image, "filename", "") or "the picture")):
        image.load()
    if image.mode.startswith("I;16"):
        return _grey(image, white=65535)
    if image.mode in ("I", "F"):
        return _grey(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


@contextmanager
def opened(path: os.PathLike[str]) -> Iterator[ImageFile.ImageFile]:
    """A file that Pillow knows, as Pillow opens it; nothing is decoded yet."""
    with decoding(shown(path)):
        file = Image.open(path)
    with file:
        yield file


def frame(file: ImageFile.ImageFile, name: str, place: int = 0) -> Image.Image:
    """One frame of an open file, as `open_image` returns it; `name` is the file's in what is raised."""
    with decoding(name):
        if place:  # where a file opens is not always at 0: PSD counts from 1
            file.seek(place)
    if file.width * file.height > MOST_PIXELS:
        raise _too_large(name)
    with decoding(name):
        pixels = _pixels(file)
    check_size(pixels.size, name)
    picture = as_rgb(pixels)
    turn = _turn(file)
    return picture if turn is None else picture.transpose(turn)


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise PrumergeError unless a picture or frame of this width and height can be shown to a model."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise _too_large(name)
    if min(size) < SMALLEST_SIDE:
        raise PrumergeError(
            f"{name} is {width} x {height} pixels; a picture needs at least {SMALLEST_SIDE} a side"
        )


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Pillow at work on a file: whatever it stumbles over becomes one sentence that names the file.

    Only Pillow's own calls belong inside: its decoders raise any exception there is on damaged files.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are checked here, and metadata
            yield
    except (PrumergeError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except UnidentifiedImageError:
        raise PrumergeError(
            f"{name} is no picture or animation that Pillow can read; save it as JPEG, PNG, WebP or GIF"
        ) from None
    except Exception as error:
        if getattr(error, "errno", None) is not None:
            raise PrumergeError(f"{name} cannot be read ({first_line(error)})") from None
        if isinstance(error, NotImplementedError) or _NOT_HERE.search(str(error)):
            raise PrumergeError(
                f"{name} is of a kind that Pillow cannot decode here ({first_line(error)}); save it as PNG"
            ) from None
        raise PrumergeError(f"{name} is damaged or cut short ({first_line(error)})") from None


def _too_large(name: str) -> PrumergeError:
    return PrumergeError(
        f"{name} has more than {MOST_PIXELS // 10**6} megapixels; scale it down, "
        "the model looks at a few hundred pixels a side"
    )


def _grey(image: Image.Image, white: float | None = None) -> Image.Image:
    values = np.asarray(image)
    shades = _shades(values, white)
    key = image.info.get("transparency")
    if key is not None:
        shades[values == key] = 255
    return Image.fromarray(shades).convert("RGB")


def _shades(values: Num[np.ndarray, "H W"], white: float | None) -> UInt8[np.ndarray, "H W"]:
    """Eight bits of grey; without a `white` it is looked for in what the values are."""
    known = values.astype(np.float32)
    finite = known[np.isfinite(known)]
    black, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if black < 0:
        white = high
    else:
        black = 0.0
    if white is None:
        # A range of which the picture uses less than a sixteenth is not meant.
        white = next((most for most in (1, 255, 65535) if most / 16 < high <= most), high)
    scaled = (np.nan_to_num(known, nan=black) - black) / ((white - black) or 1)
    return np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)


def _pixels(file: ImageFile.ImageFile) -> Image.Image:
    """The frame that a file stands at, where Pillow leaves something to know about the format as `as_rgb`
    takes it: colour keys in the units of pixels, and grey of as many bits as its mode has."""
    key = file.info.get("transparency")
    raw = file.tile[0].args if file.format == "PNG" and file.tile else None
    file.load()
    picture = file.copy()
    if key is not None and raw in ("L;2", "L;4"):
        picture.info["transparency"] = key * {"L;2": 85, "L;4": 17}[raw]
    elif key is not None and raw == "RGB;16B":
        picture.info["transparency"] = tuple(value >> 8 for value in key)
    if file.format == "PPM" and picture.mode == "I":  # 16 bits, whatever they hold
        return picture.convert("I;16")
    if getattr(file, "tag_v2", {}).get(ExifTags.Base.BitsPerSample) == (12,):
        return picture.point(lambda value: value * 16)
    return picture


def _turn(file: Image.Image) -> Transpose | None:
    """What turns a picture upright; None where its metadata says nothing, or nothing that can be read."""
    try:
        return _TURNS.get(file.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # whatever damaged metadata makes Pillow stumble over: the pixels are whole
        return None
