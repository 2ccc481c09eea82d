"""The visual tokens of a prompt's pictures, with the words around them for methods that read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from prumerge.compose import Placed
from prumerge.errors import PrumergeError
from prumerge.pipeline.options import Options, Relevance
from prumerge.pipeline.prompt import Prompt
from prumerge.tokens import VisualTokens


def encode(
    prompt: Prompt, placed: Placed | None = None, options: Options | None = None
) -> list[VisualTokens]:
    """The visual tokens of each picture in a prompt, or of each row's pictures as a clip; none if it shows
    nothing. What a method does inside the vision tower is done.

    Raises PrumergeError for a tower that lets no method merge, and where relevance does not fit the pictures.
    """
    placed, options = placed or Placed(), options or Options()
    if prompt.modality is None:
        return []
    pictures = prompt.family.encode(prompt.base, prompt.inputs, placed.tower)
    return shown(prompt, pictures, options)


def shown(prompt: Prompt, pictures: Sequence[VisualTokens], options: Options) -> list[VisualTokens]:
    """Pictures that are encoded already (in prompt order) as a prompt shows them: as clips if they are, with
    the words around them, and how well they match these."""
    pictures = list(pictures)
    if options.clip and prompt.modality != "video" and pictures:
        rows = prompt.owners(pictures)
        pictures = [
            VisualTokens.from_frames([one for one, own in zip(pictures, rows, strict=True) if own == row])
            for row in dict.fromkeys(rows)
        ]
    if options.relevance is not None:
        pictures = _relevant(pictures, options.relevance)
    return with_words(prompt, pictures)


def with_words(prompt: Prompt, pictures: Sequence[VisualTokens]) -> list[VisualTokens]:
    """Pictures (in prompt order) that know the language model's embeddings: of themselves, by the projector,
    and of the words in their row. Both are computed only if a method asks."""
    family, base = prompt.family, prompt.base
    embedding = prompt.model.get_input_embeddings()

    def embed(features: Float[Tensor, "M C"]) -> Float[Tensor, "M H"]:
        return family.project(base, [features])[0][:, : embedding.weight.shape[1]]  # none of deeper layers

    @cache
    def rows() -> list[int]:
        return prompt.owners(pictures)

    @torch.no_grad()
    def text(number: int) -> Float[Tensor, "T H"]:
        ids, row = prompt.inputs["input_ids"], rows()[number]
        return embedding(ids[row, prompt.words[row].nonzero()[:, 0].to(ids.device)])

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
