"""A model, and the one thread that runs it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from PIL import Image

from prumerge.errors import PrumergeError
from prumerge.loading.prompts import conversation, inputs_of, question_prompt
from prumerge.models import device_of
from prumerge.pipeline.prompt import Prompt

Result = TypeVar("Result")


class Host:
    """All that touches a model's weights or its processor goes through `run`, one after the other: neither
    tokenizers nor weights that are brought in for a call bear two threads."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.thread = ThreadPoolExecutor(1, "model")
        self._tokenizer = copy.deepcopy(processor.tokenizer)  # for the event loop's thread
        ends = model.generation_config.eos_token_id
        self.ends: frozenset[int] = frozenset(ends if isinstance(ends, list) else [ends] if ends else [])
        """Tokens that end an answer."""
        self.apart = self._apart()
        """Whether a picture has the same tokens, however many others its prompt has."""

    def nothing(self, pictures: int = 1) -> str:
        """A prompt of pictures without words, to encode them by."""
        return question_prompt(self.processor, "", pictures)

    def _apart(self) -> bool:
        wide = Image.new("RGB", (900, 600))
        token = self.model.config.image_token_id
        try:
            one, two = (
                int((inputs_of(self.processor, [[wide] * n], [self.nothing(n)])["input_ids"] == token).sum())
                for n in (1, 2)
            )
        except PrumergeError:  # a processor of one picture
            return True
        return two == 2 * one

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        text = self.model.config.text_config
        return int(getattr(text, "max_position_embeddings", None) or 2**31)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in the model's thread, for inference."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, _inferring, function, arguments)

    def text(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None) -> str:
        """A conversation as the model reads it."""
        return conversation(self.processor, messages, tools)

    def words(self, tokens: Sequence[int]) -> str:
        """Tokens of an answer as text, for the event loop's thread."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def prompt(self, pictures: Sequence[Sequence[Image.Image]], texts: Sequence[str]) -> Prompt:
        """Texts, each with its pictures, as one batch on the model's device."""
        inputs = inputs_of(self.processor, pictures, texts)
        return Prompt.read(self.model, inputs.to(device_of(self.model)))

    def close(self) -> None:
        """Let the thread end when its work is done."""
        self.thread.shutdown(wait=False, cancel_futures=True)


@torch.inference_mode()
def _inferring(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    return function(*arguments)
