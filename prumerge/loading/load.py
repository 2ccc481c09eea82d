"""From a name to a model, from a path to a picture, from both to inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging

from prumerge.errors import PrumergeError
from prumerge.loading.original import find, open_folder
from prumerge.loading.processors import processor_of
from prumerge.models import check_sees

SMALLEST_SIDE, MOST_PIXELS = 14, 100_000_000


def load(name: str = "tiny", **options: Any) -> tuple[Any, Any]:
    """A vision-language model and its processor, ready to generate.

    `name` is `"tiny"` (the embedded model: nothing to download), a Hugging Face id such as
    `"llava-hf/llava-1.5-7b-hf"`, or a checkpoint folder. `options` go to `from_pretrained` (dtype,
    device_map, quantization_config, ...); without a dtype the checkpoint's own is taken.

    Checkpoints in the layout of the original LLaVA code or of TinyLLaVA Factory are read as well (see
    `prumerge.loading.original`).

    Raises ValueError if there is no such model, it cannot see pictures, or its family is not supported.
    """
    is_tiny = name == "tiny"
    if is_tiny:
        from prumerge.tiny import WEIGHTS

        name, options = str(WEIGHTS), {"dtype": torch.float32, **options}
    published = None if is_tiny else find(name)
    if published is not None:
        with _quiet():
            model, processor = open_folder(published, **options)
        processor.tokenizer.padding_side = "left"
        return model, processor
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise PrumergeError(
            f"there is no model to load at {name!r}: it must be 'tiny', a folder with a config.json, or a "
            f"Hugging Face id that can be reached ({_first_line(error)})"
        ) from error
    check_sees(config)
    with _quiet(bars=not is_tiny):
        try:
            processor = processor_of(name, config)
            model = AutoModelForImageTextToText.from_pretrained(name, **{"dtype": "auto", **options})
        except (OSError, ValueError) as error:
            raise PrumergeError(f"the checkpoint {name!r} is not complete: {_first_line(error)}") from error
        except ImportError as error:
            raise PrumergeError(f"to load {name!r} a package is missing: {_first_line(error)}") from error
    processor.tokenizer.padding_side = "left"
    return model.eval(), processor


@contextmanager
def _quiet(bars: bool = True) -> Iterator[None]:
    """Transformers says errors only (that torchvision is not there is no news), and with or without bars."""
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def open_image(path: str | Path) -> Image.Image:
    """A picture from disk in RGB, turned upright, transparency on white; of an animation the first frame.

    Raises ValueError, naming the file and what is wrong with it, for anything a model cannot be shown.
    """
    path = Path(path)
    if not path.is_file():
        raise PrumergeError(f"there is no picture at {str(path)!r}")
    if not path.stat().st_size:
        raise PrumergeError(f"{str(path)!r} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked below
            with Image.open(path) as opened:
                width, height = opened.size
                if width * height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                image = ImageOps.exif_transpose(opened)
    except Image.DecompressionBombError:
        raise PrumergeError(
            f"{str(path)!r} has more than {MOST_PIXELS // 10**6} megapixels; scale it down, "
            "the model looks at a few hundred pixels a side"
        ) from None
    except UnidentifiedImageError:
        raise PrumergeError(
            f"{str(path)!r} is no picture that Pillow can read (JPEG, PNG, WebP, ...)"
        ) from None
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise PrumergeError(f"{str(path)!r} is damaged or cut short ({_first_line(error)})") from None
    if min(width, height) < SMALLEST_SIDE:
        raise PrumergeError(
            f"{str(path)!r} is {width} x {height} pixels; a picture needs at least {SMALLEST_SIDE} a side"
        )
    return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """Any picture in RGB, 16 bits of grey with all their shades, transparency on white."""
    if image.mode.startswith("I"):  # 16 bits of grey, of which Pillow would cut off the bright part
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def prepare(processor: Any, image: Image.Image | Sequence[Image.Image], question: str) -> Any:
    """Inputs for one question about one picture, or about the frames of a clip one after the other."""
    images = [image] if isinstance(image, Image.Image) else list(image)
    if not images:
        raise PrumergeError("the clip has no frames; give it at least one")
    prompt = question_prompt(processor, question, pictures=len(images))
    # How long a prompt may be is said of the shortened one: not verbose.
    return processor(images=images, text=prompt, return_tensors="pt", verbose=False)


def question_prompt(processor: Any, question: str, pictures: int = 1) -> str:
    """One question about some pictures, by the processor's chat template or LLaVA 1.5's prompt; BLIP-2's
    where a processor writes the placeholders of its queries itself."""
    if getattr(processor, "num_query_tokens", None):
        return f"Question: {question} Answer:"
    if not processor.chat_template:
        images = "<image>\n" * pictures
        return f"USER: {images}{question} ASSISTANT:"
    content = [*[{"type": "image"}] * pictures, {"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
