"""What a method keeps of each picture, checked once for all entrances, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prumerge.errors import PrumergeError
from prumerge.pipeline.options import DEFAULT, Options
from prumerge.reducer import Reducer
from prumerge.tokens import Reduction, VisualTokens


@dataclass(frozen=True)
class Decision:
    """What is left of one picture, M tokens, and how the language model reads it: T tokens and separators, in
    which order, on which of its P placeholders. All but the reduction is on the CPU, where prompts are worked
    out."""

    tokens: VisualTokens
    reduction: Reduction

    kept: Bool[Tensor, "P"]
    """Which of the picture's placeholders stay."""

    standing: Int[Tensor, "T"]
    """Which placeholder each stands for."""

    order: Int[Tensor, "T"] | None = None
    """Of tokens, and after them separators; None: as they come."""

    between: Int[Tensor, "_"] | None = None
    """Which separators stay; None: there are none."""

    owners: Int[Tensor, "T"] | None = None
    """As which of the T the language model's layers keep each one's keys and values; None: as its own."""

    def __len__(self) -> int:
        return len(self.reduction.index)

    def left(self) -> Left:
        """The same without the picture: what the prompt around it needs to know."""
        standing = self.standing.clone()  # a view would keep the places of all pictures decided with it
        return Left(len(self), self.kept, standing, self.sizes(), self.owners)

    def features(self) -> Float[Tensor, "T C"]:
        """What is read."""
        features = self.reduction.of(self.tokens.features, self.tokens.class_feature)
        if self.between is not None and self.tokens.separators is not None:
            separators = self.tokens.separators.features
            features = torch.cat([features, separators[self.between.to(separators.device)]])
        return features if self.order is None else features[self.order.to(features.device)]

    def sizes(self) -> Float[Tensor, "T"]:
        """How many patches each stands for, every patch counted once; separators count as one. On the CPU."""
        sizes = self.tokens.whole(self.tokens.assigned(self.reduction)).sizes().cpu()
        sizes = torch.cat([sizes, torch.ones(len(self.standing) - len(sizes))])
        return sizes if self.order is None else sizes[self.order]


@dataclass(frozen=True)
class Left:
    """What a prompt needs to know of a picture that is decided: little, so that it can be remembered beside
    the embeddings of its T tokens and separators. All on the CPU."""

    tokens: int
    """That are left."""

    kept: Bool[Tensor, "P"]
    """As a `Decision` has it."""

    standing: Int[Tensor, "T"]
    """As a `Decision` has it."""

    patches_each: Float[Tensor, "T"]
    """How many patches each of what is left stands for."""

    owners: Int[Tensor, "T"] | None = None
    """As a `Decision` has it."""

    def __len__(self) -> int:
        return self.tokens

    @property
    def placeholders(self) -> int:
        """How many the picture has in the processor's prompt."""
        return len(self.kept)

    def sizes(self) -> Float[Tensor, "T"]:
        """How many patches each stands for."""
        return self.patches_each

    def tensors(self) -> list[Tensor]:
        """What it holds."""
        held = (self.kept, self.standing, self.patches_each, self.owners)
        return [tensor for tensor in held if tensor is not None]


def decide(
    method: Reducer | None, pictures: Sequence[VisualTokens], options: Options = DEFAULT
) -> list[Decision]:
    """What a method keeps of each picture; without one, every token.

    Raises PrumergeError for features or scores that are not finite, and for a decision that is none: its
    method has made no Reduction, or one of no token, of more than there are, of a place that is none, or of
    a token twice.
    """
    if not pictures:
        return []
    if method is None:
        reductions = [Reduction(torch.arange(len(one), device=one.features.device)) for one in pictures]
    else:
        # In full precision: under autocast a picture would keep other tokens in training than in use.
        with torch.autocast(pictures[0].features.device.type, enabled=False):
            reductions = [method(pictures[0])] if len(pictures) == 1 else method.decide(pictures)
    _check_shapes(method, pictures, reductions)
    places = _on_cpu(pictures, [reduction.index for reduction in reductions])
    _check_places(method, pictures, reductions, places)
    return [_read(*one, options) for one in zip(pictures, reductions, places, strict=True)]


def with_owners(method: Reducer, decisions: Sequence[Decision], *, whole: bool) -> list[Decision]:
    """The same, and into whose keys and values each token's go by a method that leaves all tokens where they
    are (`LayerReducer.prefix`); `whole` says that nothing was dropped before. Raises as `decide` does."""
    left = [one.tokens if whole else one.tokens.reduced(one.reduction) for one in decisions]
    grouped = [one.tokens.assigned(one.reduction) for one in decide(method, left)]
    return [replace(one, owners=_owners(one, rows)) for one, rows in zip(decisions, grouped, strict=True)]


def _owners(decision: Decision, rows: Reduction) -> Int[Tensor, "T"]:
    """For each of what is read, in that order, the one that its keys and values go into."""
    assert rows.assignment is not None
    own = rows.index[rows.assignment].scatter(0, rows.index, rows.index).cpu()
    own = torch.cat([own, torch.arange(len(own), len(decision.standing))])
    return own if decision.order is None else decision.order.argsort()[own[decision.order]]


def _read(tokens: VisualTokens, reduction: Reduction, index: Int[Tensor, "M"], options: Options) -> Decision:
    """How what is left of one picture is read; `index` is the reduction's, on the CPU."""
    if tokens.placed is None:  # any placeholders do, so the first ones
        kept = _first(len(index), tokens.placeholders)
        if options.placing == "compact":
            return Decision(tokens, reduction, kept, index)
        return Decision(
            tokens, reduction, kept, *_standing(tokens, reduction, index, options).sort(stable=True)
        )
    standing = _standing(tokens, reduction, index, options)
    between, stays = tokens.separators, None
    if between is not None:
        staying = torch.full((len(between.at),), options.separators == "keep")
        if options.separators == "remake":
            rows = between.of[index]
            staying[rows[rows >= 0]] = True
        stays = staying.nonzero()[:, 0]
        standing = torch.cat([standing, between.at[stays]])
    standing, order = standing.sort(stable=True)
    return Decision(tokens, reduction, _taken(standing, tokens.placeholders), standing, order, stays)


@lru_cache(maxsize=256)
def _first(count: int, of: int) -> Bool[Tensor, "of"]:
    """True for the first `count` placeholders."""
    return torch.arange(of) < count


def _taken(standing: Int[Tensor, "T"], count: int) -> Bool[Tensor, "P"]:
    """Which of `count` placeholders stay for tokens that stand at these, in order; one that stands where
    another does takes the nearest free one."""
    kept = torch.zeros(count, dtype=torch.bool)
    kept[standing] = True
    free = (~kept).nonzero()[:, 0]
    for place in standing[1:][standing[1:] == standing[:-1]].tolist():
        nearest = int(torch.searchsorted(free, place).clamp(max=len(free) - 1))
        kept[free[nearest]] = True
        free = torch.cat([free[:nearest], free[nearest + 1 :]])
    return kept


def _standing(
    tokens: VisualTokens, reduction: Reduction, index: Int[Tensor, "M"], options: Options
) -> Int[Tensor, "M"]:
    """The placeholder of its picture that each token stands for, on the CPU."""
    median = options.placing == "median" and (reduction.weights is not None or tokens.merged is not None)
    if tokens.merged is not None:  # patches are the placeholders that no separator has
        whole, patches = tokens.whole(reduction), torch.ones(tokens.placeholders, dtype=torch.bool)
        if tokens.separators is not None:
            patches[tokens.separators.at] = False
        return patches.nonzero()[:, 0][(whole.medians(tokens.patches) if median else whole.index).cpu()]
    if tokens.placed is None:
        return reduction.medians(len(tokens)).cpu() if median else index
    if not median:
        return tokens.placed[index]
    assert reduction.weights is not None
    placed, order = tokens.placed.sort()
    ranked = Reduction(order.argsort()[index], reduction.weights.cpu()[:, order])
    return placed[ranked.medians(len(order))]


@torch.no_grad()
def _on_cpu(
    pictures: Sequence[VisualTokens], places: Sequence[Int[Tensor, "_"]]
) -> Sequence[Int[Tensor, "_"]]:
    """All places, in one transfer with whether what they were chosen by is finite: the one wait for the
    device after encoding."""
    values = [x for one in pictures for x in (one.features, one.keys)]
    wide = torch.promote_types(torch.float32, values[0].dtype)
    # Of length 2: the largest value takes a CPU twenty times as long, and cosines square as well.
    norms = torch._foreach_norm(values, 2, dtype=wide)
    finite = torch.stack(norms).isfinite().view(-1, 2).all(1)
    found, *index = torch.cat([finite.long(), *places]).cpu().split([len(pictures), *map(len, places)])
    if not found.all():
        number = int((found == 0).nonzero()[0, 0])
        which = "the picture" if len(pictures) == 1 else f"picture {number + 1} of {len(pictures)}"
        raise PrumergeError(
            f"the features of {which} hold values that are not finite (NaN or infinite): look at its pixels "
            "and at the model's weights"
        )
    return index


def _check_shapes(
    method: Reducer | None, pictures: Sequence[VisualTokens], reductions: Sequence[Reduction]
) -> None:
    """Raise PrumergeError for what is no decision, before values are looked at."""
    for tokens, reduction in zip(pictures, reductions, strict=True):
        if not isinstance(reduction, Reduction):
            raise PrumergeError(f"{method} returned {type(reduction).__name__}; a method returns a Reduction")
        index, weights, available = reduction.index, reduction.weights, len(tokens.features)
        if index.dtype != torch.long or index.ndim != 1:
            raise PrumergeError(
                f"{method} returned an index of {str(index.dtype).removeprefix('torch.')} with shape "
                f"{tuple(index.shape)}; it must be the places of the tokens that stay, int64 in one row "
                "(of a mask: mask.nonzero()[:, 0])"
            )
        if not 0 < len(index) <= available:
            raise PrumergeError(
                f"{method} made {len(index)} tokens of {available}; it must be 1 to {available}"
            )
        if weights is not None and (len(weights) != len(index) or weights.shape[1] < available):
            raise PrumergeError(
                f"{method} returned weights of {tuple(weights.shape)}; they have a row for each of the "
                f"{len(index)} tokens left and a column for each of the {available} patches"
            )


def _check_places(
    method: Reducer | None,
    pictures: Sequence[VisualTokens],
    reductions: Sequence[Reduction],
    chosen: Sequence[Int[Tensor, "_"]],
) -> None:
    """Raise PrumergeError for places that are none, or taken twice."""
    for tokens, reduction, index in zip(pictures, reductions, chosen, strict=True):
        available = len(tokens.features)
        places = sorted(index.tolist())
        low, high = places[0], places[-1]
        if low < 0 or high >= available:
            raise PrumergeError(
                f"{method} returned an index from {low} to {high}; places are 0 to {available - 1}"
            )
        if reduction.weights is None and len(set(places)) < len(places):
            raise PrumergeError(f"{method} returned an index that names a token twice; each may stay once")
