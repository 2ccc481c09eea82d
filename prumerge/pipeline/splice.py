"""Encode -> select -> merge -> project -> shorten: a processor's output in, a shorter prompt out.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from prumerge import ops
from prumerge.compose import Placed
from prumerge.errors import PrumergeError
from prumerge.models import family_of, unwrap
from prumerge.reducer import Reducer
from prumerge.spec import make
from prumerge.tokens import Reduction, VisualTokens

Positions = Literal["compact", "original", "median"]
"""Position ids of what is left: counted anew without gaps, those of the places that tokens stand for, or for
merged tokens that of the median of their sources."""

Policy = Literal["keep", "drop", "remake"]
"""What becomes of newlines between the rows of a large picture, and of class tokens between frames: all stay,
none, or those of rows and frames of which a token stays."""

Relevance: TypeAlias = Callable[[Sequence[VisualTokens]], Sequence[Tensor]]
"""For the pictures of a prompt, in its order: how well each patch matches the text, [N] each, 0 to 1."""

VIDEOS = "pixel_values_videos"


def reduce(
    model: nn.Module,
    inputs: Mapping[str, Any],
    reducer: str | Reducer,
    *,
    positions: Positions = "compact",
    clip: bool = False,
    separators: Policy = "keep",
    relevance: Relevance | None = None,
    size_bias: bool = False,
) -> dict[str, Any]:
    """Shorten a prompt: encode its pictures, reduce their visual tokens, drop the placeholders that are left
    over.

    `inputs` is what the processor returned (`input_ids [B, L]`, `attention_mask`, `pixel_values`, perhaps
    `labels`). The result goes to `model(**...)` or `model.generate(**...)` in its place: `input_ids [B, L']`,
    every other tensor of shape [B, L] cut alike, and the features as `mm_encoder_outputs`. Rows are padded on
    the side where the batch was padded before (left if it was not). Inputs without pictures come back as they
    are. With `clip` the pictures of a row are the frames of one clip: methods see them together.

    Newlines that a family puts between tokens stay, go, or stay where a token of their row does, as
    `separators` says.

    Methods that read the text compare patches with the words of the prompt by the language model's
    embeddings, or take what `relevance` says of the pictures, such as `prumerge.clip_relevance(...)`.

    `positions` are counted anew without gaps ("compact"), or stay those of the places that the tokens stand
    for ("original"; "median": of the median of the places merged into a token), and tokens are read in that
    order. A bias on attention for the size of merged tokens (`size_bias`) is no part of a prompt: `attach`
    has it, here it raises ValueError.

    Gradients follow torch's own switches, so for inference call it under `torch.no_grad()`. Beam search in
    Transformers expands `mm_encoder_outputs` in place: reduce anew for each such `generate`.

    Raises ValueError for unknown methods and options, a family that is not supported, and a prompt whose
    placeholders do not match its pictures.
    """
    if size_bias:
        raise PrumergeError(
            "size_bias works inside the language model, not by a shorter prompt: use it by "
            f"`with prumerge.attach(model, {str(reducer)!r}, size_bias=True)` "
            "or `prumerge answer --size-bias`"
        )
    chosen = select(model, inputs, reducer, clip=clip, relevance=relevance)
    return splice(model, inputs, chosen, positions, separators=separators)


def select(
    model: nn.Module,
    inputs: Mapping[str, Any],
    reducer: str | Reducer,
    *,
    clip: bool = False,
    relevance: Relevance | None = None,
) -> list[tuple[VisualTokens, Reduction]]:
    """The visual tokens of each picture in `inputs` and what the method decides for them; raises as `reduce`.

    Where the vision tower has merged patches (ToMe), `tokens.whole(reduction)` is the decision for the
    patches of `tokens.picture_grid`.
    """
    method = make(reducer)
    if Placed.of(method).layers is not None:
        raise PrumergeError(
            f"{method} works inside the language model, not by a shorter prompt: use it by "
            f"`with prumerge.attach(model, {str(method)!r})` or `prumerge answer`"
        )
    return decide(model, inputs, method, clip=clip, relevance=relevance)


def decide(
    model: nn.Module,
    inputs: Mapping[str, Any],
    method: Reducer,
    *,
    clip: bool = False,
    relevance: Relevance | None = None,
) -> list[tuple[VisualTokens, Reduction]]:
    """`select` for the part of a method that works before the language model."""
    before = Placed.of(method).before or make("none")
    pictures = encode(model, inputs, method, clip=clip, relevance=relevance)
    chosen = [(tokens, _decide(before, tokens)) for tokens in pictures]
    for tokens, reduction in chosen:
        if not 0 < len(reduction) <= len(tokens):
            raise PrumergeError(
                f"{method} made {len(reduction)} tokens of {len(tokens)}; it must be 1 to {len(tokens)}"
            )
    return chosen


def _decide(method: Reducer, tokens: VisualTokens) -> Reduction:
    """In full precision: under autocast the same picture would keep other tokens in training than in use."""
    with torch.autocast(tokens.features.device.type, enabled=False):
        return method(tokens)


def encode(
    model: nn.Module,
    inputs: Mapping[str, Any],
    method: Reducer | None = None,
    *,
    clip: bool = False,
    relevance: Relevance | None = None,
) -> list[VisualTokens]:
    """The visual tokens of each picture in `inputs`, or of each row's pictures as a clip; none if it holds no
    pictures. What `method` does inside the vision tower is done."""
    inner = unwrap(model)
    kind = inner.config.model_type
    modality = modality_of(inputs)
    if modality is None:
        return []
    family = family_of(kind)
    if modality == "video" and VIDEOS not in family.inputs:
        raise PrumergeError(f"models of type {kind!r} take no videos; pass the frames as pictures")
    tower = None if method is None else Placed.of(method).tower
    found = family.encode(inner.base_model, inputs, tower)
    if clip and modality == "image":
        places = inputs["input_ids"] == _placeholder(inner.config, modality)
        _check_places(int(places.sum()), sum(one.placeholders for one in found), len(found), modality)
        rows = _by_row(found, places.sum(1).tolist())
        found = [VisualTokens.from_frames(frames) for frames in rows if frames]
    if relevance is not None:
        scores = relevance(found)
        if [len(each) for each in scores] != [len(one) for one in found]:
            raise PrumergeError(
                f"relevance gives {[len(each) for each in scores]} scores for pictures of "
                f"{[len(one) for one in found]} visual tokens; it must give one for each"
            )
        found = [replace(one, relevance=each) for one, each in zip(found, scores, strict=True)]
    return ask(model, inputs, found)


def _by_row(pictures: list[VisualTokens], counts: list[int]) -> list[list[VisualTokens]]:
    """The pictures of each row of a batch, by its number of placeholders."""
    waiting, rows = iter(pictures), []
    for count in counts:
        row: list[VisualTokens] = []
        while sum(one.placeholders for one in row) < count:
            row.append(next(waiting))
        rows.append(row)
    return rows


def ask(model: nn.Module, inputs: Mapping[str, Any], pictures: Sequence[VisualTokens]) -> list[VisualTokens]:
    """Pictures that are encoded already (in prompt order), with the words of the prompts around them.

    For methods that read the text. Words are all tokens of the picture's row but padding, placeholders and
    those that begin and end a text; they are embedded only if a method asks.
    """
    inner = unwrap(model)
    family, base = family_of(inner.config.model_type), inner.base_model
    modality = modality_of(inputs) or "image"

    def embed(features: Tensor) -> Tensor:
        width = inner.get_input_embeddings().weight.shape[1]
        return family.project(base, [features])[0][:, :width]  # without features of deeper layers

    @cache
    def texts() -> list[Tensor]:
        return _words(inner, inputs, [tokens.placeholders for tokens in pictures], modality)

    def text(number: int) -> Tensor:
        return texts()[number]

    written = inputs.get("input_ids") is not None
    return [
        replace(tokens, embed=embed, text=partial(text, number) if written else None)
        for number, tokens in enumerate(pictures)
    ]


@torch.no_grad()
def _words(
    inner: Any, inputs: Mapping[str, Any], sizes: list[int], modality: str
) -> list[Float[Tensor, "_ H"]]:
    """The language model's embeddings of the words in each picture's row."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    text, image = inner.config.text_config, ids == _placeholder(inner.config, modality)
    words = ~image
    for special in ("bos_token_id", "eos_token_id", "pad_token_id"):
        given = getattr(text, special, None)
        for token in given if isinstance(given, list) else [given]:
            words &= ids != (-1 if token is None else token)
    image, words = torch.stack([image, words if mask is None else words & mask.bool()]).cpu()
    _check_places(int(image.sum()), sum(sizes), len(sizes), modality)
    row_of_place = image.nonzero()[:, 0].tolist()
    rows = [row_of_place[end - size] for end, size in zip(accumulate(sizes), sizes, strict=True)]
    embedding = inner.get_input_embeddings()
    return [embedding(ids[row, words[row].to(ids.device)].to(embedding.weight.device)) for row in rows]


def splice(
    model: nn.Module,
    inputs: Mapping[str, Any],
    chosen: Sequence[tuple[VisualTokens, Reduction]],
    positions: Positions = "compact",
    *,
    separators: Policy = "keep",
) -> dict[str, Any]:
    """The second half of `reduce`: the shorter prompt for decisions that are made, in prompt order."""
    check_positions(positions, model)
    if separators not in get_args(Policy):
        raise PrumergeError(f"separators are {', '.join(get_args(Policy))}, not {separators!r}")
    if not chosen:
        return dict(inputs)
    modality = modality_of(inputs) or "image"  # pictures may be encoded already, and not be among the inputs
    inner = unwrap(model)
    family, base = family_of(inner.config.model_type), inner.base_model
    rest = {name: value for name, value in inputs.items() if name not in family.inputs}
    readings = [_reading(*one, positions, separators) for one in chosen]
    kept, standing = ([getattr(one, name) for one in readings] for name in ("kept", "standing"))
    features = [one.features(*each) for one, each in zip(readings, chosen, strict=True)]
    offsets = [0, *accumulate(tokens.placeholders for tokens, _ in chosen)]
    at = torch.cat([first + places for first, places in zip(offsets, standing, strict=False)])
    shorter, order = _shorten(
        inner.config,
        rest,
        torch.cat(kept),
        None if positions == "compact" else at,
        pictures=len(chosen),
        modality=modality,
    )
    if family.positions is not None:
        left = _Left(rest["input_ids"] == _placeholder(inner.config, modality), torch.cat(kept), at, order)
        shorter["position_ids"] = left.pick(family.positions(base, inputs), shorter["attention_mask"])
    family.deliver(base, shorter, family.project(base, features), modality)
    return shorter


def column_sizes(
    model: nn.Module,
    shorter: Mapping[str, Any],
    chosen: Sequence[tuple[VisualTokens, Reduction]],
    positions: Positions = "compact",
    *,
    separators: Policy = "keep",
) -> Float[Tensor, "B L"]:
    """How many patches each column of the prompt that `splice` made stands for (`Reduction.sizes`); words,
    padding and separators count as one. On the CPU.

    Raises ValueError for models that are handed embeddings instead of a prompt.
    """
    config, ids = unwrap(model).config, shorter["input_ids"].cpu()
    names = ("image_token_id", "video_token_id")
    placeholders = torch.tensor([getattr(config, name, None) or -1 for name in names])
    sizes, at = torch.ones(ids.shape), torch.isin(ids, placeholders)
    own = [_reading(*one, positions, separators).sizes(*one) for one in chosen]
    if int(at.sum()) != sum(map(len, own)):
        raise PrumergeError(
            f"models of type {config.model_type!r} are handed embeddings, in which sizes have no place; "
            "leave out size_bias"
        )
    return sizes.masked_scatter(at, torch.cat([*own, sizes[0, :0]]))


def check_positions(positions: str, model: nn.Module) -> None:
    """Raise ValueError for a word that is none of `Positions`, or for one that the model has no use for."""
    if positions not in get_args(Positions):
        raise PrumergeError(f"positions are {', '.join(get_args(Positions))}, not {positions!r}")
    kind = unwrap(model).config.model_type
    if positions != "compact" and family_of(kind).positions is not None:
        raise PrumergeError(
            f"models of type {kind!r} have positions in time and space, which tokens keep anyway; "
            f"leave out positions={positions!r}"
        )


def modality_of(inputs: Mapping[str, Any]) -> str | None:
    """Whether raw pictures ("image") or videos ("video") came with a prompt, or neither.

    Raises ValueError for both at once, and for a video without frames.
    """
    if inputs.get("inputs_embeds") is not None and inputs.get("input_ids") is not None:
        return None  # features are among the embeddings already
    given = {"image": inputs.get("pixel_values"), "video": inputs.get(VIDEOS)}
    if given["video"] is not None and 0 in given["video"].shape:
        raise PrumergeError("the video has no frames; give it at least one")
    found = [modality for modality, pixels in given.items() if pixels is not None and len(pixels)]
    if len(found) > 1:
        raise PrumergeError("pictures and videos in one batch are not supported; ask about them one by one")
    return found[0] if found else None


def has_pictures(inputs: Mapping[str, Any]) -> bool:
    """Whether raw pictures or videos came with a prompt."""
    return modality_of(inputs) is not None


@dataclass(frozen=True)
class _Reading:
    """How the language model reads one picture: T tokens and separators that are left, in which order."""

    kept: Bool[Tensor, "P"]
    """Which of its placeholders stay for that."""
    standing: Int[Tensor, "T"]
    """Which placeholder each stands for."""
    order: Int[Tensor, "T"] | None = None
    """Of tokens, and after them separators; None: as they come."""
    between: Bool[Tensor, "L"] | None = None
    """Which separators stay; None: there are none."""

    def features(self, tokens: VisualTokens, reduction: Reduction) -> Float[Tensor, "T C"]:
        """What is read."""
        features = reduction.apply(tokens)
        if self.between is not None and tokens.separators is not None:
            features = torch.cat([features, tokens.separators.features[self.between.to(features.device)]])
        return features if self.order is None else features[self.order.to(features.device)]

    def sizes(self, tokens: VisualTokens, reduction: Reduction) -> Float[Tensor, "T"]:
        """How many patches each stands for; separators count as one. On the CPU."""
        sizes = tokens.whole(reduction).sizes().cpu()
        sizes = torch.cat([sizes, torch.ones(len(self.standing) - len(sizes))])
        return sizes if self.order is None else sizes[self.order.cpu()]


def _reading(
    tokens: VisualTokens, reduction: Reduction, positions: Positions, separators: Policy
) -> _Reading:
    """Of one picture."""
    standing, between, stays = _places(tokens, reduction, positions), tokens.separators, None
    if tokens.placed is None:  # any placeholders do, so the first ones
        kept = torch.arange(tokens.placeholders) < len(reduction)
        return (
            _Reading(kept, standing)
            if positions == "compact"
            else _Reading(kept, *standing.sort(stable=True))
        )
    standing = standing.cpu()
    if between is not None:
        stays = torch.full((len(between.at),), separators == "keep")
        if separators == "remake":
            rows = between.of[reduction.index.cpu()]
            stays[rows[rows >= 0]] = True
        standing = torch.cat([standing, between.at[stays]])
    standing, order = standing.sort(stable=True)
    kept = torch.zeros(tokens.placeholders, dtype=torch.bool)
    kept[standing] = True
    free = (~kept).nonzero()[:, 0]  # a token that stands where another does takes the next free placeholder
    for place in standing[1:][standing[1:] == standing[:-1]].tolist():
        nearest = int(torch.searchsorted(free, place).clamp(max=len(free) - 1))
        kept[free[nearest]] = True
        free = torch.cat([free[:nearest], free[nearest + 1 :]])
    return _Reading(kept, standing, order, stays)


def _places(tokens: VisualTokens, reduction: Reduction, positions: Positions) -> Int[Tensor, "M"]:
    """The placeholder of its picture that each token stands for."""
    whole = tokens.whole(reduction)
    if tokens.placed is None or tokens.merged is not None:  # patches are placeholders
        return whole.medians(tokens.patches) if positions == "median" else whole.index
    if positions != "median" or whole.weights is None:
        return tokens.placed[whole.index.cpu()]
    placed, order = tokens.placed.to(whole.index.device).sort()
    ranked = Reduction(order.argsort()[whole.index], whole.weights[:, order])
    return placed[ranked.medians(len(order))]


def _shorten(
    config: Any,
    inputs: dict[str, Any],
    kept: Bool[Tensor, "N"],
    standing: Int[Tensor, "T"] | None,
    pictures: int,
    modality: str,
) -> tuple[dict[str, Any], Int[Tensor, "B M"] | None]:
    """Drop the placeholders that are not `kept` (in prompt order), and pad the rows to one length again.

    Those that stay get the positions of the T that they are `standing` for; None: counted without gaps. Also
    gives the columns that are left of each row, or None if nothing is dropped.
    """
    ids = inputs.get("input_ids")
    if ids is None:
        raise PrumergeError("the prompt must come as input_ids; inputs_embeds cannot be shortened")
    inputs = {"attention_mask": None, **inputs}
    if inputs["attention_mask"] is None:
        inputs["attention_mask"] = torch.ones_like(ids)
    # The layout is worked out on the CPU, so that a GPU is waited for once.
    image, mask = torch.stack([ids == _placeholder(config, modality), inputs["attention_mask"].bool()]).cpu()
    _check_places(int(image.sum()), len(kept), pictures, modality)
    if kept.all():
        return inputs, None
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
    return inputs, order


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
            flat = positions.flatten(1)
            at = self.image.flatten().nonzero()[:, 0].to(flat.device)
            into, of = at[self.kept.to(flat.device)], at[self.standing.to(flat.device)]
            flat = flat.index_copy(1, into, flat[:, of])
            order = self.order.to(flat.device).expand(len(flat), -1, -1)
            positions = flat.view_as(positions).gather(2, order)
            positions = positions.masked_fill(mask == 0, 0)
        count = (mask.long().cumsum(1) - 1).masked_fill(mask == 0, 0)
        return torch.cat([count[None], positions.to(count.device)])


def _check_places(places: int, needed: int, pictures: int, modality: str) -> None:
    if places == needed:
        return
    what = {"image": "picture"}.get(modality, modality)
    if not places:
        raise PrumergeError(
            f"the prompt has no {modality} placeholder; write <{modality}> where the {what} belongs"
        )
    each = needed // pictures
    raise PrumergeError(
        f"the prompt has placeholders for {places / each:g} {what}s ({places} tokens, {each} each), but "
        f"{pictures} came with it; write <{modality}> once for each {what}"
    )


def _placeholder(config: Any, modality: str) -> int:
    return getattr(config, f"{modality}_token_id")


def _padding_id(config: Any) -> int:
    """A token to pad with that no picture is spliced into."""
    candidates = (config.text_config.pad_token_id, config.text_config.eos_token_id, 0, 1, 2)
    taken = (config.image_token_id, getattr(config, "video_token_id", None))
    return next(c for c in candidates if isinstance(c, int) and c >= 0 and c not in taken)
