"""What lmms-eval asks: messages and generation settings, read into what a model of Transformers takes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from PIL import Image
from transformers import GenerationConfig

from prumerge.errors import PrumergeError, short
from prumerge.loading.clips import open_clip
from prumerge.loading.images import as_rgb, open_image
from prumerge.loading.prompts import check_words, conversation

LONGEST = 1024
"""Tokens of an answer where a task does not say how many, as lmms-eval's own models have it."""
_OTHERS = ("image_sizes", "image_aspect_ratio", "modalities")  # that other models of lmms-eval take


@dataclass(frozen=True)
class Asked:
    """A conversation that is to be answered."""

    text: str
    """As the model reads it, with placeholders."""
    pictures: tuple[Image.Image, ...]
    """In their order; of a clip its frames."""
    clip: bool
    """Whether they are the frames of clips."""
    instruction: str
    """The words of the last question alone."""

    @property
    def digest(self) -> str:
        """Of the words and of every pixel: another question, or a picture that was exchanged, is another."""
        found = sha256(self.text.encode())
        for picture in self.pictures:
            found.update(repr(picture.size).encode() + picture.tobytes())
        return found.hexdigest()


def read_messages(processor: Any, messages: Sequence[Mapping[str, Any]], frames: int) -> Asked:
    """A conversation in lmms-eval's form: `{"role", "content": [{"type", "text" or "url"}]}`, of a clip so
    many frames.

    Raises PrumergeError for what is neither text, picture nor clip, for parts of a clip, for pictures and
    clips at once, and for a text that holds a model's placeholder.
    """
    pictures: list[Image.Image] = []
    kinds: set[str] = set()
    turns, instruction = [], ""
    for message in messages:
        content: list[dict[str, str]] = []
        for part in message["content"]:
            kind = part["type"]
            if kind == "text":
                check_words(processor, part["text"])
                content.append({"type": "text", "text": part["text"]})
            else:
                shown = _pictures(part, frames)
                kinds.add(kind)
                pictures += shown
                content += [{"type": "image"} for _ in shown]
        turns.append({"role": message["role"], "content": content})
        if message["role"] == "user":
            instruction = " ".join(part["text"] for part in content if part["type"] == "text")
    if len(kinds) > 1:
        raise PrumergeError("pictures and clips in one question are not supported; leave such a task out")
    return Asked(conversation(processor, turns), tuple(pictures), kinds == {"video"}, instruction)


def _pictures(part: Mapping[str, Any], frames: int) -> list[Image.Image]:
    kind, url = part["type"], part.get("url")
    if kind == "video" and isinstance(url, str):
        if part.get("start_time") is not None or part.get("end_time") is not None:
            raise PrumergeError("parts of a clip are not supported; cut it into files of their own")
        return [as_rgb(frame) for frame in open_clip(url, frames)]
    if kind == "image" and isinstance(url, Image.Image):
        return [as_rgb(url)]
    if kind == "image" and isinstance(url, str):
        return [as_rgb(open_image(url))]
    raise PrumergeError(
        f"a task shows {short(kind)} as {type(url).__name__}; prumerge answers about pictures and files of "
        "clips"
    )


@dataclass(frozen=True)
class Generation:
    """How a batch is answered."""

    options: Mapping[str, Any]
    """What `generate` takes."""
    until: tuple[str, ...]
    """An answer ends before the first of these."""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Generation:
        """From a task's `generation_kwargs`, which stay as they are: greedy unless a temperature above 0, or
        `do_sample` without one, says otherwise. What `generate` does not know is left out with a warning."""
        left = {name: value for name, value in given.items() if name not in _OTHERS}
        until = left.pop("until", None) or ()
        temperature = left.pop("temperature", None)
        samples = left.pop("do_sample", temperature is not None)
        options: dict[str, Any] = {"do_sample": bool(samples and temperature != 0)}
        shape = {
            "temperature": temperature,
            "top_p": left.pop("top_p", None),
            "top_k": left.pop("top_k", None),
        }
        if options["do_sample"]:
            options |= {name: value for name, value in shape.items() if value is not None}
        known = vars(GenerationConfig())
        for name, value in left.items():
            if name in known:
                options[name] = value
            else:
                warnings.warn(
                    f"{name}={value!r} of a task is left out: no option of `generate`", stacklevel=2
                )
        options["max_new_tokens"] = int(options.get("max_new_tokens") or LONGEST)
        return cls(options, (until,) if isinstance(until, str) else tuple(until))

    def ended(self, text: str) -> str:
        """An answer up to the first word that ends it."""
        ends = [text.find(stop) for stop in self.until if stop and stop in text]
        return text[: min(ends)].strip() if ends else text.strip()
