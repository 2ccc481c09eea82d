"""The prompt of a question whose pictures are decided: where it can be, without looking at them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature

from prumerge.models import device_of
from prumerge.pipeline.prompt import Prompt
from prumerge.serve.asked import Asked
from prumerge.serve.host import Host
from prumerge.serve.reduced import Reduced


def prompt_of(host: Host, asked: Sequence[Asked], pictures: Sequence[Sequence[Reduced]]) -> Prompt:
    """Questions as one batch, in the model's thread.

    A processor that writes a picture as so many placeholders, and nothing else, was seen to do so when the
    picture was encoded (`is_plain`): then the tokenizer does the rest.
    """
    texts = [one.text for one in asked]
    shown = [one for row in pictures for one in row]
    if shown and all(one.plain for one in shown):
        counts = [[one.left.placeholders for one in row] for row in pictures]
        return Prompt.read(host.model, written(host.processor, texts, counts).to(device_of(host.model)))
    return host.prompt([[one.image for one in row.pictures] for row in asked], texts)


def is_plain(processor: Any, prompt: Prompt, texts: Sequence[str], counts: Sequence[Sequence[int]]) -> bool:
    """Whether the processor's output for these texts is what the tokenizer makes of placeholders alone."""
    more = {name for name in prompt.inputs if name not in prompt.family.inputs and "pixel" not in name}
    word = getattr(processor, "image_token", None)
    if more != {"input_ids", "attention_mask"} or prompt.family.positions or not isinstance(word, str):
        return False
    if [text.count(word) for text in texts] != list(map(len, counts)):
        return False
    own = written(processor, texts, counts)
    ids, mask = (prompt.inputs[name].cpu() for name in ("input_ids", "attention_mask"))
    return torch.equal(own["input_ids"], ids) and torch.equal(own["attention_mask"], mask)


def written(processor: Any, texts: Sequence[str], counts: Sequence[Sequence[int]]) -> BatchFeature:
    """Texts whose pictures are so many placeholders each, as one batch that is padded on the left."""
    word, bos = str(processor.image_token), processor.tokenizer.bos_token
    expanded = []
    for text, own in zip(texts, counts, strict=True):
        first, *others = text.split(word)
        expanded.append(first + "".join(word * n + rest for n, rest in zip(own, others, strict=True)))
    begun = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
    options = {"padding": True, "padding_side": "left", "return_tensors": "pt", "verbose": False}
    found = processor.tokenizer(expanded, **options, **begun)
    return BatchFeature({name: found[name] for name in ("input_ids", "attention_mask")})
