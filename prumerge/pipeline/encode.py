"""The visual tokens of a prompt's pictures as it shows them: clips, and the words around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from prumerge.errors import PrumergeError
from prumerge.pipeline.options import Options, Relevance
from prumerge.pipeline.prompt import Prompt
from prumerge.tokens import VisualTokens


def shown(prompt: Prompt, pictures: Sequence[VisualTokens], options: Options) -> list[VisualTokens]:
    """Pictures (in prompt order, as their encoder left them) as a prompt shows them: as clips if they are,
    with how well they match its words, and with the language model's embeddings of themselves (by the
    projector) and of the words in their row. Embeddings are computed only if a method asks.

    Raises PrumergeError where pictures or relevance do not fit the prompt.
    """
    pictures = list(pictures)
    if options.clip and prompt.modality != "video" and pictures:
        own = prompt.rows([one.placeholders for one in pictures])
        pictures = [
            VisualTokens.from_frames([one for one, at in zip(pictures, own, strict=True) if at == row])
            for row in dict.fromkeys(own)
        ]
    if options.relevance is not None:
        pictures = _relevant(pictures, options.relevance)
    family, base = prompt.family, prompt.base
    embedding = prompt.model.get_input_embeddings()

    def embed(features: Float[Tensor, "M C"]) -> Float[Tensor, "M H"]:
        return family.project(base, [features])[0][:, : embedding.weight.shape[1]]  # none of deeper layers

    @cache
    @torch.no_grad()
    def texts() -> list[Float[Tensor, "_ H"]]:
        """For each picture the words of its row, all looked up at once."""
        ids = prompt.inputs["input_ids"]
        at = prompt.words.flatten().nonzero()[:, 0].to(ids.device)
        by_row = embedding(ids.flatten()[at]).split(prompt.words.sum(1).tolist())
        return [by_row[row] for row in prompt.rows([one.placeholders for one in pictures])]

    def text(number: int) -> Float[Tensor, "T H"]:
        return texts()[number]

    return [
        replace(tokens, embed=embed, text=partial(text, number) if prompt.ids is not None else None)
        for number, tokens in enumerate(pictures)
    ]


def _relevant(pictures: list[VisualTokens], relevance: Relevance) -> list[VisualTokens]:
    scores = list(relevance(pictures))
    if [len(each) for each in scores] != [len(one) for one in pictures]:
        raise PrumergeError(
            f"relevance gives {[len(each) for each in scores]} scores for pictures of "
            f"{[len(one) for one in pictures]} visual tokens; it must give one for each"
        )
    return [replace(one, relevance=each) for one, each in zip(pictures, scores, strict=True)]
