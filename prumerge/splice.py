"""Encode -> select -> merge -> project -> shorten: a processor's output in, a shorter prompt out.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import accumulate
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prumerge import ops
from prumerge.models import family_of, unwrap
from prumerge.places import split
from prumerge.reducer import Reducer, make
from prumerge.tokens import Reduction, VisualTokens

Positions = Literal["compact", "original", "median"]
"""Position ids of what is left: counted anew without gaps, those of the places that tokens stand for, or for
merged tokens that of the median of their sources."""


def reduce(
    model: nn.Module,
    inputs: Mapping[str, Any],
    reducer: str | Reducer,
    *,
    positions: Positions = "compact",
) -> dict[str, Any]:
    """Shorten a prompt: encode its pictures, reduce their visual tokens, drop the placeholders that are left
    over.

    `inputs` is what the processor returned (`input_ids [B, L]`, `attention_mask`, `pixel_values`, perhaps
    `labels`). The result goes to `model(**...)` or `model.generate(**...)` in its place: `input_ids [B, L']`,
    every other tensor of shape [B, L] cut alike, and the features as `mm_encoder_outputs`. Rows are padded on
    the side where the batch was padded before (left if it was not). Inputs without pictures come back as they
    are.

    `positions` are counted anew without gaps ("compact"), or stay those of the places that the tokens stand
    for ("original"; "median": of the median of the places merged into a token), and tokens are read in that
    order.

    Gradients follow torch's own switches, so for inference call it under `torch.no_grad()`. Beam search in
    Transformers expands `mm_encoder_outputs` in place: reduce anew for each such `generate`.

    Raises ValueError for unknown methods and options, a family that is not supported, and a prompt whose
    placeholders do not match its pictures.
    """
    return splice(model, inputs, select(model, inputs, reducer), positions)


def select(
    model: nn.Module, inputs: Mapping[str, Any], reducer: str | Reducer
) -> list[tuple[VisualTokens, Reduction]]:
    """The visual tokens of each picture in `inputs` and what the method decides for them; raises as `reduce`.

    Where the vision tower has merged patches (ToMe), `tokens.whole(reduction)` is the decision for the
    patches of `tokens.picture_grid`.
    """
    method = make(reducer)
    if split(method)[2] is not None:
        raise ValueError(
            f"{method} works inside the language model, not by a shorter prompt: use it by "
            f"`with prumerge.attach(model, {str(method)!r})` or `prumerge answer`"
        )
    return decide(model, inputs, method)


def decide(
    model: nn.Module, inputs: Mapping[str, Any], method: Reducer
) -> list[tuple[VisualTokens, Reduction]]:
    """`select` for the part of a method that works before the language model."""
    _, before, _ = split(method)
    chosen = [(tokens, _decide(before, tokens)) for tokens in encode(model, inputs, method)]
    for tokens, reduction in chosen:
        if not 0 < len(reduction) <= len(tokens):
            raise ValueError(
                f"{method} made {len(reduction)} tokens of {len(tokens)}; it must be 1 to {len(tokens)}"
            )
    return chosen


def _decide(method: Reducer, tokens: VisualTokens) -> Reduction:
    """In full precision: under autocast the same picture would keep other tokens in training than in use."""
    with torch.autocast(tokens.features.device.type, enabled=False):
        return method(tokens)


def encode(model: nn.Module, inputs: Mapping[str, Any], method: Reducer | None = None) -> list[VisualTokens]:
    """The visual tokens of each picture in `inputs`, none if it holds no pictures; what `method` does inside
    the vision tower is done."""
    if not has_pictures(inputs):
        return []
    inner = unwrap(model)
    family = family_of(inner.config.model_type)
    tower = None if method is None else split(method)[0]
    merging = () if tower is None else (tower,)
    return ask(model, inputs, family.encode(inner.base_model, inputs, *merging))


def ask(model: nn.Module, inputs: Mapping[str, Any], pictures: Sequence[VisualTokens]) -> list[VisualTokens]:
    """Pictures that are encoded already (in prompt order), with the words of the prompts around them.

    For methods that read the text. Words are all tokens of the picture's row but padding, placeholders and
    those that begin and end a text; they are embedded only if a method asks.
    """
    inner = unwrap(model)
    family, base = family_of(inner.config.model_type), inner.base_model

    def embed(features: Tensor) -> Tensor:
        return family.project(base, [features])[0]

    @cache
    def texts() -> list[Tensor]:
        return _words(inner, inputs, [tokens.places for tokens in pictures])

    def text(number: int) -> Tensor:
        return texts()[number]

    written = inputs.get("input_ids") is not None
    return [
        replace(tokens, embed=embed, text=partial(text, number) if written else None)
        for number, tokens in enumerate(pictures)
    ]


@torch.no_grad()
def _words(inner: Any, inputs: Mapping[str, Any], sizes: list[int]) -> list[Float[Tensor, "_ H"]]:
    """The language model's embeddings of the words in each picture's row."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    text, image = inner.config.text_config, ids == inner.config.image_token_id
    words = ~image
    for special in (text.bos_token_id, text.eos_token_id, text.pad_token_id):
        for token in special if isinstance(special, list) else [special]:
            words &= ids != (-1 if token is None else token)
    image, words = torch.stack([image, words if mask is None else words & mask.bool()]).cpu()
    _check_places(int(image.sum()), sum(sizes), len(sizes))
    row_of_place = image.nonzero()[:, 0].tolist()
    rows = [row_of_place[end - size] for end, size in zip(accumulate(sizes), sizes, strict=True)]
    embedding = inner.get_input_embeddings()
    return [embedding(ids[row, words[row].to(ids.device)].to(embedding.weight.device)) for row in rows]


def splice(
    model: nn.Module,
    inputs: Mapping[str, Any],
    chosen: Sequence[tuple[VisualTokens, Reduction]],
    positions: Positions = "compact",
) -> dict[str, Any]:
    """The second half of `reduce`: the shorter prompt for decisions that are made, in prompt order."""
    check_positions(positions)
    if not chosen:
        return dict(inputs)
    standing = None
    if positions != "compact":
        chosen, places = zip(*(_in_place(*one, positions) for one in chosen), strict=True)
        before = [0, *accumulate(tokens.places for tokens, _ in chosen)]
        standing = torch.cat([first + index for first, index in zip(before, places, strict=False)])
    inner = unwrap(model)
    family = family_of(inner.config.model_type)
    rest = {name: value for name, value in inputs.items() if name not in family.ENCODER_INPUTS}
    kept = torch.cat([_first(tokens.places, len(reduction)) for tokens, reduction in chosen])
    shorter = _shorten(inner.config, rest, kept, standing, pictures=len(chosen))
    features = family.project(inner.base_model, [reduction.apply(tokens) for tokens, reduction in chosen])
    shorter["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=features)}
    return shorter


def _in_place(
    tokens: VisualTokens, reduction: Reduction, positions: Positions
) -> tuple[tuple[VisualTokens, Reduction], Int[Tensor, "M"]]:
    """A decision with its tokens in the order of the places that they stand for, and these places."""
    whole = tokens.whole(reduction)
    places, order = (whole.medians(tokens.places) if positions == "median" else whole.index).sort(stable=True)
    return (tokens, reduction.rows(order)), places


def check_positions(positions: str) -> None:
    """Raise ValueError for a word that is none of `Positions`."""
    if positions not in get_args(Positions):
        raise ValueError(f"positions are {', '.join(get_args(Positions))}, not {positions!r}")


def has_pictures(inputs: Mapping[str, Any]) -> bool:
    """Whether raw pictures came with a prompt."""
    pixels = inputs.get("pixel_values")
    return pixels is not None and len(pixels) > 0


def _first(places: int, kept: int) -> Bool[Tensor, "places"]:
    """Which placeholders of one picture stay: positions are compact, so the first ones do as well as any."""
    return torch.arange(places) < kept


def _shorten(
    config: Any,
    inputs: dict[str, Any],
    kept: Bool[Tensor, "N"],
    standing: Int[Tensor, "M"] | None,
    pictures: int,
) -> dict[str, Any]:
    """Drop the placeholders that are not `kept` (in prompt order), and pad the rows to one length again.

    The M that stay get the positions of those that they are `standing` for; None: counted without gaps.
    """
    ids = inputs.get("input_ids")
    if ids is None:
        raise ValueError("the prompt must come as input_ids; inputs_embeds cannot be shortened")
    if inputs.get("attention_mask") is None:
        inputs["attention_mask"] = torch.ones_like(ids)
    # The layout is worked out on the CPU, so that a GPU is waited for once.
    image, mask = torch.stack([ids == config.image_token_id, inputs["attention_mask"].bool()]).cpu()
    _check_places(int(image.sum()), len(kept), pictures)
    if kept.all():
        return inputs
    stays = mask.masked_scatter(image, kept)
    on_the_right = bool(mask[:, 0].all()) and not bool(mask[:, -1].all())
    order = ops.packed(stays, on_the_right=on_the_right)
    padding = ~stays.gather(1, order)
    positions = inputs.get("position_ids")
    if standing is not None:
        if positions is None:
            positions = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
        at = image.flatten().nonzero()[:, 0]
        into, of = at[kept].to(positions.device), at.to(positions.device)[standing.to(positions.device)]
        flat = positions.expand_as(ids).flatten()
        inputs["position_ids"] = flat.index_copy(0, into, flat[of]).view_as(ids)
    elif positions is not None:  # counted anew, without gaps
        inputs["position_ids"] = positions - (image & ~stays).cumsum(1).to(positions.device)
    fill = {"input_ids": _padding_id(config), "labels": -100}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == ids.shape:
            cut = value.gather(1, order.to(value.device))
            inputs[name] = cut.masked_fill(padding.to(value.device), fill.get(name, 0))
    return inputs


def _check_places(places: int, needed: int, pictures: int) -> None:
    if places == needed:
        return
    if not places:
        raise ValueError("the prompt has no image placeholder; write <image> where the picture belongs")
    each = needed // pictures
    raise ValueError(
        f"the prompt has placeholders for {places / each:g} pictures ({places} tokens, {each} each), but "
        f"{pictures} came with it; write <image> once for each picture"
    )


def _padding_id(config: Any) -> int:
    """A token to pad with that no picture is spliced into."""
    candidates = (config.text_config.pad_token_id, config.text_config.eos_token_id, 0)
    return next((c for c in candidates if isinstance(c, int) and 0 <= c != config.image_token_id), 1)
