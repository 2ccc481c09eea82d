"""Which models' prompts can travel to another engine as embeddings."""

from __future__ import annotations

from typing import Any

from PIL import Image

from prumerge.errors import PrumergeError
from prumerge.loading.prompts import prepare
from prumerge.models import answers_apart, family_of


def check_travels(model: Any, processor: Any) -> None:
    """Raise PrumergeError for a model whose language model reads more than one embedding for each token."""
    kind = model.config.model_type
    family = family_of(kind)
    reason = None
    if family.positions is not None:
        reason = "have positions in time and space"
    elif answers_apart(model.config):
        reason = "answer by an encoder and a decoder"
    else:
        inputs = prepare(processor, Image.new("RGB", (64, 64)), "what is there?")
        known = {"input_ids", "attention_mask", *family.inputs}
        if more := [name for name in inputs if name not in known and "pixel" not in name]:
            reason = f"attend to pictures in another way than to words ({more[0]})"
    if reason is not None:
        raise PrumergeError(
            f"models of type {kind!r} {reason}, which embeddings alone do not carry to another engine; "
            "serve them by this process (prumerge serve without --engine)"
        )
