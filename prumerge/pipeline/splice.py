"""The shorter prompt: what is left of each picture in the place of its placeholders."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.models import answers_apart, family_of, unwrap
from prumerge.pipeline.decide import Decision, Left
from prumerge.pipeline.options import DEFAULT, Options
from prumerge.pipeline.prompt import Prompt


def splice(
    prompt: Prompt,
    decisions: Sequence[Decision | Left],
    embeddings: Sequence[Float[Tensor, "_ H"]],
    options: Options = DEFAULT,
) -> dict[str, Any]:
    """A prompt in which each picture (in prompt order) has as many placeholders as are left of it, and
    `embeddings` in their places.

    Raises PrumergeError where placeholders and pictures do not match.
    """
    family = prompt.family
    sizes = [len(one.kept) for one in decisions]
    prompt.rows(sizes)
    offsets = accumulate(sizes, initial=0)
    kept = torch.cat([one.kept for one in decisions])
    standing = torch.cat([first + one.standing for first, one in zip(offsets, decisions, strict=False)])
    shorter, order = _shorten(prompt, kept, None if options.placing == "compact" else standing)
    if family.positions is not None:
        check_positions(options, prompt.model.config)
        whole = family.positions(prompt.base, prompt.inputs)
        left = _Left(prompt.image, kept, standing, order)
        shorter["position_ids"] = left.pick(whole, shorter["attention_mask"])
    family.deliver(prompt.base, shorter, list(embeddings), prompt.modality or "image")
    return shorter


class Columns(NamedTuple):
    """What the language model's layers are told of the columns of a prompt that `splice` made; on the CPU."""

    sizes: Float[Tensor, "B L"] | None = None
    """How many patches each stands for; None: attention takes no notice."""

    owners: Int[Tensor, "B L"] | None = None
    """The column that the keys and values of each go into; None: all stay where they are."""


def column_sizes(
    model: nn.Module, shorter: Mapping[str, Any], decisions: Sequence[Decision | Left]
) -> Float[Tensor, "B L"]:
    """How many patches each column of the prompt that `splice` made stands for (`Decision.sizes`); words,
    padding and separators count as one. On the CPU.

    Raises PrumergeError for models that are handed embeddings instead of a prompt.
    """
    own = [one.sizes() for one in decisions]
    at = _placeholders(model, shorter, sum(map(len, own)), "leave out size_bias")
    sizes = torch.ones(at.shape)
    return sizes.masked_scatter(at, torch.cat([*own, sizes[0, :0]]))


def column_owners(
    model: nn.Module, shorter: Mapping[str, Any], decisions: Sequence[Decision | Left]
) -> Int[Tensor, "B L"]:
    """The column of the same row that the keys and values of each column go into (`Decision.owners`); of
    words, padding and separators its own. On the CPU; raises as `column_sizes` does."""
    own = [one.owners for one in decisions if one.owners is not None]
    at = _placeholders(model, shorter, sum(map(len, own)), "use a method before the language model")
    offsets = accumulate(map(len, own), initial=0)
    owners = torch.arange(at.shape[1]).expand_as(at)
    columns = owners[at]
    each = [columns[first + one] for first, one in zip(offsets, own, strict=False)]
    return owners.masked_scatter(at, torch.cat([*each, columns[:0]]))


def _placeholders(
    model: nn.Module, shorter: Mapping[str, Any], count: int, instead: str
) -> Bool[Tensor, "B L"]:
    """Where the prompt has its `count` placeholders, on the CPU. Raises PrumergeError where there are not so
    many."""
    config, ids = unwrap(model).config, shorter["input_ids"].cpu()
    names = ("image_token_id", "video_token_id")
    at = torch.isin(ids, torch.tensor([getattr(config, name, None) or -1 for name in names]))
    if int(at.sum()) != count:
        raise PrumergeError(
            f"models of type {config.model_type!r} are handed embeddings, in which no column says whose "
            f"it is; {instead}"
        )
    return at


def check_positions(options: Options, config: Any) -> None:
    """Raise PrumergeError for positions that models of this configuration have no use for."""
    if options.positions not in ("auto", "compact") and family_of(config.model_type).positions is not None:
        raise PrumergeError(
            f"models of type {config.model_type!r} have positions in time and space, which tokens keep "
            f"anyway; leave out positions={options.positions!r}"
        )


def _shorten(
    prompt: Prompt, kept: Bool[Tensor, "N"], standing: Int[Tensor, "T"] | None
) -> tuple[dict[str, Any], Int[Tensor, "B M"] | None]:
    """Drop the placeholders that are not `kept` (in prompt order), and pad the rows to one length again.

    Those that stay get the positions of the T that they are `standing` for; None: counted without gaps. Also
    gives the columns that are left of each row, or None if nothing is dropped.
    """
    ids, image, mask = prompt.inputs["input_ids"], prompt.image, prompt.mask
    assert mask is not None
    inputs = {name: value for name, value in prompt.inputs.items() if name not in prompt.family.inputs}
    if inputs.get("attention_mask") is None:
        inputs["attention_mask"] = mask.to(ids)
    own: set[str] = set()
    if answers_apart(prompt.model.config):  # what its decoder reads, which no picture is in
        own = {name for name in inputs if name == "labels" or name.startswith("decoder_")}
    if isinstance(labels := inputs.get("labels"), Tensor) and "labels" not in own:
        inputs["labels"] = _of_words(labels, image)
    if kept.all():
        return inputs, None
    stays = mask.masked_scatter(image, kept)
    # Rows begin at one column and end where they will; rows padded on both sides do not.
    on_the_right = bool(mask[:, 0].all()) and not bool(mask[:, -1].all())
    if not on_the_right:  # padding behind answers stays: callers count from the end
        stays = stays | (mask.flip(1).cumsum(1).flip(1) == 0)
    order = ops.packed(stays, on_the_right=on_the_right)
    padding = ~stays.gather(1, order)
    positions = inputs.get("position_ids")
    if standing is not None:
        if positions is None:
            positions = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
        inputs["position_ids"] = _moved(positions.expand_as(ids), image, kept, standing)
    elif positions is not None:  # counted anew, without gaps
        inputs["position_ids"] = positions - (image & ~stays).cumsum(1).to(positions.device)
    fill = {"input_ids": _padding_id(prompt), "labels": -100}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == ids.shape and name not in own:
            cut = value.gather(1, order.to(value.device))
            inputs[name] = cut.masked_fill(padding.to(value.device), fill.get(name, 0))
    return inputs, order


def _of_words(labels: Int[Tensor, "B L"], image: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Labels without those on placeholders, of which another number is left at each budget."""
    at = image.to(labels.device)
    if (labels[at] == -100).all():
        return labels
    warnings.warn(
        "labels on image placeholders were set to -100: no model can be taught to say a picture; leave them "
        "out in the data collator, since trainers divide the loss by their number",
        stacklevel=2,
    )
    return labels.masked_fill(at, -100)


def _moved(
    positions: Int[Tensor, "*R L"],
    image: Bool[Tensor, "B L"],
    kept: Bool[Tensor, "N"],
    standing: Int[Tensor, "T"],
) -> Int[Tensor, "*R L"]:
    """Positions [B, L] or [R, B, L] with those of the places that tokens stand for where they stay."""
    flat = positions.reshape(-1, image.numel())
    at = image.flatten().nonzero()[:, 0]
    into, of = at[kept].to(flat.device), at[standing].to(flat.device)
    return flat.index_copy(1, into, flat[:, of]).view(positions.shape)


@dataclass(frozen=True)
class _Left:
    """What is left of a prompt, for positions with several rows (rotary positions in time and space)."""

    image: Bool[Tensor, "B L"]
    kept: Bool[Tensor, "N"]
    standing: Int[Tensor, "T"]
    order: Int[Tensor, "B M"] | None

    def pick(self, positions: Int[Tensor, "R B L"], mask: Int[Tensor, "B M"]) -> Int[Tensor, "R1 B M"]:
        """Of what stays its own positions, of tokens those of the places they stand for, and before them a
        row without gaps, which Transformers makes masks from."""
        if self.order is not None:
            positions = _moved(positions, self.image, self.kept, self.standing)
            order = self.order.to(positions.device).expand(len(positions), -1, -1)
            positions = positions.gather(2, order).masked_fill(mask == 0, 0)
        count = (mask.long().cumsum(1) - 1).masked_fill(mask == 0, 0)
        return torch.cat([count[None], positions.to(count.device)])


def _padding_id(prompt: Prompt) -> int:
    """A token to pad with that no picture is spliced into."""
    config = prompt.model.config
    text = config.text_config
    candidates = (text.pad_token_id, text.eos_token_id, 0, 1, 2)
    taken = (config.image_token_id, getattr(config, "video_token_id", None))
    return next(c for c in candidates if isinstance(c, int) and c >= 0 and c not in taken)
