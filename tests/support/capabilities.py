"""What a family can, each shown on a small random model of its real class.

A capability that fails is an AssertionError; one that the family has not says `Unsupported`, or a sentence of
the package's own (PrumergeError).
"""

import copy
from functools import cache

import torch
from asking import SPEC, answer, logits, reduced
from builders import IMAGE, PAD
from families import FAMILIES, VIDEO, Picture, rows_of

import prumerge
from prumerge.errors import PrumergeError


class Unsupported(Exception):
    """The family does not say that it can."""


def modalities(family):
    """What the family is shown: pictures, and videos too."""
    return ("image", "video") if family.videos else ("image",)


def rows_with(family, modality):
    if modality not in modalities(family):
        raise Unsupported
    return rows_of(family, modality)


@cache  # one picture and several are shown by the same prompts
def same_bits(family, modality):
    """`none` is the untouched model, by `reduce` and attached."""
    rows = rows_with(family, modality)
    model, plain = family.model(), family.prompt(*rows)
    said = answer(model, plain)
    assert torch.equal(logits(model, reduced(model, plain, "none")), logits(model, plain))
    assert torch.equal(answer(model, reduced(model, plain, "none")), said)
    with prumerge.attach(model, "none"):
        attached = answer(model, family.prompt(*rows))
    assert torch.equal(attached, said)


def image(family):
    same_bits(family, "image")


def several_images(family):
    rows = rows_with(family, "image")
    if max(sum(isinstance(x, Picture) for x in row) for row in rows) < 2:
        raise Unsupported
    same_bits(family, "image")


def video(family):
    same_bits(family, "video")


def batch(family):
    """Each row of a ragged batch is the row alone."""
    for modality in modalities(family):
        model, rows = family.model(), rows_of(family, modality)
        shorter = reduced(model, family.prompt(*rows))
        scores = logits(model, shorter)
        for row, inputs in enumerate(rows):
            alone, whole = reduced(model, family.prompt(inputs)), family.prompt(inputs)
            real = shorter["attention_mask"][row].bool()
            assert int(real.sum()) == alone["input_ids"].shape[1] < whole["input_ids"].shape[1]
            torch.testing.assert_close(scores[row, real], logits(model, alone)[0], atol=1e-4, rtol=1e-3)


def beams(family):
    """Answers to a batch are those to each row by beam search, which begins as a greedy one does."""
    for modality in modalities(family):
        model, rows = family.model(), rows_of(family, modality)
        together = answer(model, reduced(model, family.prompt(*rows)), num_beams=3)
        for row, inputs in enumerate(rows):
            alone = answer(model, reduced(model, family.prompt(inputs)), num_beams=3)
            assert torch.equal(together[row], alone[0])


def training(family):
    """Gradients reach tower and language model."""
    for modality in modalities(family):
        model, inputs = copy.deepcopy(family.model()).train(), family.prompt(*rows_of(family, modality))
        ids = inputs["input_ids"]
        visual = (ids == IMAGE) | (ids == VIDEO) | (ids == PAD)
        inputs["labels"] = ids.masked_fill(visual, -100)
        loss = model(**prumerge.reduce(model, inputs, SPEC)).loss
        loss.backward()
        seen = [
            weight.grad.abs().sum()
            for name, weight in model.named_parameters()
            if any(part in name for part in ("vision", "visual", "tower")) and weight.grad is not None
        ]
        assert loss.isfinite()
        assert sum(seen) > 0
        assert model.get_input_embeddings().weight.grad.abs().sum() > 0


def class_token(family):
    """The class token scores the patches of every picture and frame."""
    for modality in modalities(family):
        rows = rows_of(family, modality)
        for tokens, _ in prumerge.select(family.model(), family.prompt(*rows), "none"):
            if tokens.class_key is None:
                raise Unsupported


def merging(family):
    """A method merges patches inside the vision tower."""
    chosen = prumerge.select(family.model(), family.prompt(*rows_of(family)), "tome:r=1")
    assert all(len(tokens) < tokens.patches for tokens, _ in chosen)


def pruning(family):
    """A method drops tokens between layers of the language model."""
    model = family.model()
    with prumerge.attach(model, "fastv:layer=1,keep=0.5") as attached:
        answer(model, family.prompt(*rows_of(family)))
    assert len(attached.inside.tokens_by_layer) == len(attached.tokens) > 0
    assert all(first > last for first, *_, last in attached.inside.tokens_by_layer)


CAPABILITIES = {
    "image": image,
    "multi-image": several_images,
    "video": video,
    "batch": batch,
    "beams": beams,
    "training": training,
    "class token": class_token,
    "merging": merging,
    "pruning": pruning,
}


def can(name, capability):
    """Whether a family (by its model type) can do it, in one of its kinds here; a kind that fails raises."""
    found = []
    for family in (family for family in FAMILIES.values() if family.name == name):
        try:
            CAPABILITIES[capability](family)
        except (Unsupported, PrumergeError):
            found.append(False)
        else:
            found.append(True)
    return any(found)
