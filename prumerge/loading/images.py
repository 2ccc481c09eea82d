"""One reader for pictures and for frames: RGB, upright, transparency on white, of a size a model can look at."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Num, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose

from prumerge.errors import PrumergeError
from prumerge.loading.paths import existing, first_line, shown

SMALLEST_SIDE, MOST_PIXELS = 14, 100_000_000

# EXIF's orientation: what turns the stored picture upright.
_TURNS = {
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

    Grey of 16 bits is scaled by what 16 bits can hold; grey of 32 bits, integers or floats, by the smallest of
    1, 255 and 65535 that holds it, or from its darkest to its brightest where it fits into none of them.
    Raises PrumergeError for what is no picture, or one without pixels.
    """
    if not isinstance(image, Image.Image):
        raise PrumergeError(
            f"a picture of Pillow's is needed, not {type(image).__name__}; prumerge.open_image() reads one "
            "from a file"
        )
    if 0 in image.size:
        raise PrumergeError(f"the picture has no pixels: it is {image.width} x {image.height}")
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
def opened(path: os.PathLike[str]) -> Iterator[Image.Image]:
    """A file that Pillow knows, as Pillow opens it; nothing is decoded yet."""
    with decoding(shown(path)):
        file = Image.open(path)
    with file:
        yield file


def frame(file: Image.Image, name: str, place: int = 0) -> Image.Image:
    """One frame of an open file, as `open_image` returns it; `name` is the file's in what is raised."""
    with decoding(name):
        file.seek(place)
    if file.width * file.height > MOST_PIXELS:
        raise _too_large(name)
    with decoding(name):
        key = _colour_key(file)
        file.load()
        picture = file.copy()
        if key is not None:
            picture.info["transparency"] = key
        if file.format == "PPM" and file.mode == "I":  # 16 bits, whatever they hold
            picture = picture.convert("I;16")
        if file.format == "TIFF" and file.tag_v2.get(ExifTags.Base.BitsPerSample) == (12,):
            picture = picture.point(lambda value: value * 16)
        picture = as_rgb(picture)
    check_size(picture.size, name)
    turn = _TURNS.get(_orientation(file))
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
            f"{name} is no picture or animation that Pillow can read (JPEG, PNG, WebP, GIF, ...); save it as one"
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
    if white is None:
        # A range of which the picture uses less than a sixteenth is not meant.
        white = next((most for most in (1, 255, 65535) if most / 16 < high <= most), high)
    if black >= 0:
        black = 0.0
    scaled = (np.nan_to_num(known, nan=black) - black) / ((white - black) or 1)
    return np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)


def _colour_key(file: Image.Image) -> int | tuple[int, ...] | None:
    """The colour that stands for transparency, in the units of decoded pixels.

    PNG gives it in the units of the file, which Pillow leaves for 2, 4 and three times 16 bits.
    """
    key = file.info.get("transparency")
    if file.format != "PNG" or not file.tile:
        return key
    raw = file.tile[0].args
    if raw in ("L;2", "L;4"):
        return key and key * {"L;2": 85, "L;4": 17}[raw]
    if raw == "RGB;16B":
        return key and tuple(value >> 8 for value in key)
    return key


def _orientation(file: Image.Image) -> object:
    """EXIF's; None where metadata is missing or cannot be read, which says nothing about the pixels."""
    try:
        return file.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever damaged metadata makes Pillow stumble over
        return None
