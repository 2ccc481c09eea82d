"""How well patches match a text by the two towers of CLIP: the relevance that CDPruner and TRIM go by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.tokens import VisualTokens


def clip_relevance(
    clip: Any, tokenizer: Any, text: str | Sequence[str], *, product: bool = False
) -> Callable[[Sequence[VisualTokens]], list[Float[Tensor, "_"]]]:
    """The `relevance` of `prumerge.reduce` and `select` by a CLIP model whose vision tower is the model's.

    `clip` is Transformers' `CLIPModel` (for LLaVA-1.5 openai/clip-vit-large-patch14-336), `tokenizer` its
    own, `text` the question about all pictures, or one for each in prompt order. Nothing is encoded again:
    the features that the language model's projector reads go through CLIP's last layer norm and projection,
    and relevance is minus their cosine with the projected text, min-max normalised (`ops.relevance`), as in
    the official code of CDPruner (https://arxiv.org/abs/2506.10967). With `product` it is minus the product
    of the two as they are, neither cosine nor on a scale, as in the official code of TRIM
    (https://arxiv.org/abs/2409.10994): for `trim:sharpness=1`. A text that is longer than the text tower
    reads is cut into pieces, whose relevances are averaged.

    Raises ValueError for pictures of another tower, and where there is no text for each picture.
    """

    @torch.no_grad()
    def embedded(question: str) -> Float[Tensor, "T E"]:
        pieces = tokenizer(
            question,
            truncation=True,
            max_length=clip.config.text_config.max_position_embeddings,
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="pt",
        ).to(clip.device)
        read = clip.text_model(input_ids=pieces["input_ids"], attention_mask=pieces["attention_mask"])
        return clip.text_projection(read.pooler_output)

    look_up = cache(embedded)

    @torch.no_grad()
    def relevance(pictures: Sequence[VisualTokens]) -> list[Float[Tensor, "_"]]:
        texts = [text] * len(pictures) if isinstance(text, str) else list(text)
        if len(texts) != len(pictures):
            raise PrumergeError(
                f"there are {len(texts)} texts for {len(pictures)} pictures; give one text for all, "
                "or one for each"
            )
        return [one(tokens, look_up(question)) for tokens, question in zip(pictures, texts, strict=True)]

    def one(tokens: VisualTokens, question: Tensor) -> Float[Tensor, "_"]:
        project, width = clip.visual_projection, tokens.features.shape[1]
        if width != project.in_features:
            raise PrumergeError(
                f"visual tokens {width} wide are not of this CLIP model's vision tower "
                f"({project.in_features} wide); pass the CLIP model whose vision tower the model has"
            )
        patches = project(clip.vision_model.post_layernorm(tokens.features.to(project.weight)))
        if product:
            found = -(patches.float() @ question.float().mean(dim=0))
        else:
            found = ops.relevance(patches, question, inverted=True)
        return found.to(tokens.features.device)

    return relevance
