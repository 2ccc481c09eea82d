"""Batches of conversations, answered with fewer visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from prumerge.evaluate.plan import compares_frames
from prumerge.generate.answer import ended, said
from prumerge.layers.pruning import average_tokens, pruning
from prumerge.lmms_eval.requests import Asked, Generation
from prumerge.loading.prompts import inputs_of
from prumerge.models import device_of
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline


@dataclass(frozen=True)
class Answer:
    """What a model said, and how many tokens it read."""

    text: str
    visual_tokens_in: int
    """Before reduction, of all pictures."""
    visual_tokens: float
    """That the language model read; on average over its layers where a method prunes between them."""
    input_tokens: int
    """That the language model was handed, visual ones included."""
    output_tokens: int
    cut: bool
    """Whether it would have gone on after the most tokens that its task asks for."""


@dataclass(frozen=True)
class Answerer:
    """A model, and the method by which its prompts are shortened."""

    model: Any
    processor: Any
    reducer: str
    options: Options

    @torch.inference_mode()
    def answer(self, batch: Sequence[Asked], generation: Generation) -> list[Answer]:
        """Each conversation of a batch, whose pictures are all frames of clips or none of them are.

        Raises PrumergeError as `prumerge.reduce` does.
        """
        model, processor = self.model, self.processor
        pipeline = Pipeline(self.reducer, self.options)
        if batch[0].clip and compares_frames(pipeline.method):
            pipeline = Pipeline(pipeline.method, self.options.but(clip=True))
        inputs = inputs_of(
            processor,
            [asked.pictures for asked in batch],
            [asked.text for asked in batch],
            instructions=[asked.instruction for asked in batch],
        )
        prompt = Prompt.read(model, inputs.to(device_of(model)))
        shorter, decisions = pipeline.reduce(prompt)
        rows = prompt.rows([len(one.kept) for one in decisions]) if decisions else []
        columns = pipeline.columns(prompt, shorter, decisions)
        with pruning(prompt.model, pipeline.placed.layers if decisions else None, *columns) as inside:
            generated = model.generate(**shorter, **generation.options)
        kept = average_tokens(inside, [len(one) for one in decisions])
        read = shorter["attention_mask"].sum(dim=1).tolist()
        new = said(prompt, shorter, generated).tolist()
        written = ended(new, [generation.options["max_new_tokens"]] * len(new), model)
        texts = processor.batch_decode([ids for ids, _ in written], skip_special_tokens=True)
        tokens_in, tokens = [0] * len(batch), [0.0] * len(batch)
        for row, decision, count in zip(rows, decisions, kept, strict=True):
            tokens_in[row] += decision.tokens.patches
            tokens[row] += count
        return [
            Answer(
                text=generation.ended(text),
                visual_tokens_in=tokens_in[row],
                visual_tokens=tokens[row],
                input_tokens=read[row],
                output_tokens=len(ids),
                cut=cut,
            )
            for row, (text, (ids, cut)) in enumerate(zip(texts, written, strict=True))
        ]
