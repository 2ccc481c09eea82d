"""What a model says of a prompt, whole or reduced."""

import torch

import prumerge

SPEC = "prumerge_plus"


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def reduced(model, inputs, spec=SPEC, **options):
    with torch.no_grad():
        return prumerge.reduce(model, inputs, spec, **options)


def answer(model, inputs, **options):
    """The new tokens [B, T], greedily."""
    with torch.no_grad():
        ids = model.generate(**inputs, **{"max_new_tokens": 3, "do_sample": False, **options})
    return ids[:, inputs["input_ids"].shape[1] :]
