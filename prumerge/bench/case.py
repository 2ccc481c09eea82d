"""One method at one batch size: pictures to answers, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from prumerge.bench.timer import Lap
from prumerge.layers.pruning import pruning
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline

STAGES = ("encode", "decide", "project", "splice", "prefill", "decode")
"""In the order in which they run: the vision tower; what is kept of its tokens; the projector, on what is
left; the shorter prompt; the language model until the first token, and until the last."""


@dataclass(frozen=True)
class Read:
    """What the language model read, of each prompt of a batch."""

    visual: tuple[int, ...]
    """Visual tokens in each of its layers, the longest prompt's."""
    text: int
    encoded: int
    """Visual tokens before reduction."""


@dataclass(frozen=True)
class Case:
    """A model, a method and a batch of prompts."""

    model: Any
    pipeline: Pipeline
    inputs: Mapping[str, Any]
    """What the processor returned, on the model's device."""
    new_tokens: int
    """Length of every answer: what would end one earlier is not said."""

    @property
    def method(self) -> str:
        return str(self.pipeline.method)

    @property
    def batch(self) -> int:
        return len(self.inputs["input_ids"])

    @torch.no_grad()
    def run(self, lap: Lap) -> Read:
        """Take all stages. Raises PrumergeError as `reduce` and `attach` do."""
        prompt, pipeline = Prompt.read(self.model, self.inputs), self.pipeline
        pictures = pipeline.encode(prompt)
        lap("encode")
        decisions = pipeline.decide(pictures)
        lap("decide")
        embeddings = pipeline.project(prompt, decisions)
        lap("project")
        shorter = pipeline.splice(prompt, decisions, embeddings)
        lap("splice")
        with pruning(prompt.model, pipeline.placed.layers) as inside:
            self.model.generate(
                **shorter,
                max_new_tokens=self.new_tokens,
                min_new_tokens=self.new_tokens,
                do_sample=False,
                streamer=_EachToken(lap),
            )
        placeholders = int(prompt.image.sum(1).max())
        text = prompt.image.shape[1] - placeholders
        kept = shorter["input_ids"].shape[1] - text
        layers = self.model.config.get_text_config().num_hidden_layers
        by_layer = max(inside.tokens_by_layer) if inside is not None else (kept,) * layers
        return Read(tuple(by_layer), text, placeholders)


class _EachToken(BaseStreamer):
    """The first token ends the prefill, each other one a step of decoding."""

    def __init__(self, lap: Lap) -> None:
        self.lap, self.put_before = lap, 0

    def put(self, value: Tensor) -> None:
        """Transformers hands over the prompt first, then each token of the whole batch as it comes."""
        if self.put_before:
            self.lap("prefill" if self.put_before == 1 else "decode")
        self.put_before += 1

    def end(self) -> None:
        """All tokens have come."""
