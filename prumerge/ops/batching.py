"""Many pictures at once: what is written for one picture runs on all pictures of one kind (torch.vmap)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from prumerge.scores import Layer, Scores
    from prumerge.tokens import VisualTokens

Item = TypeVar("Item")
Result = TypeVar("Result")

# On the CPU memory decides, not launches (`benchmarks/launches.py`). A tensor above 32 MiB is fresh pages
# from the system each time, 0.5 ms a MiB, so pictures that are large themselves (576 x 1024 in float32 is
# 2.25 MiB) are decided one by one: together methods that normalise features took 1.1 to 5.8 times as long. Of
# smaller ones 50 of 576 tokens go together: 0.04 to 1.1 times the time of one by one, but 1.3 to 1.7 times
# for `cdpruner`, `vispruner` and `scope`, which pass over all similarities again and again (42 MB for 32
# pictures, more than the caches hold); in eights those would be even, at four times the operators.
_LARGEST_PICTURE = {"cpu": 2**20}
_LARGEST_PAIRS, _PAIRS_ELSEWHERE = {"cpu": 2**26}, 2**30


def grouped(
    items: Sequence[Item], keys: Sequence[Hashable], decide: Callable[[list[Item]], Sequence[Result]]
) -> list[Result]:
    """What `decide` says of all items with equal keys together, in the order of the items."""
    groups: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    found: dict[int, Result] = {}
    for numbers in groups.values():
        found.update(zip(numbers, decide([items[number] for number in numbers]), strict=True))
    return [found[number] for number in range(len(items))]


def kind(picture: VisualTokens) -> Hashable:
    """What pictures that are decided together have in common: shapes, and what is known of them."""
    tensors = [
        (own.name, value.shape, value.dtype, value.device)
        for own, value in ((own, getattr(picture, own.name)) for own in fields(picture) if own.metadata)
        if value is not None
    ]
    known = (picture.elsewhere is None, picture.text is None, id(picture.embed))
    return (*tensors, picture.grid, picture.tiles, picture.heads, known)


def together(
    function: Callable[..., tuple[Tensor, ...]], pictures: Sequence[VisualTokens], *own: Sequence[Tensor]
) -> list[tuple[Tensor, ...]]:
    """`function(tokens, *values)` for pictures of one kind, and what each has of its `own`: as one batched
    computation where that pays, in which lengths must follow from shapes.

    What `torch.vmap` cannot batch (a length that depends on data, a write into a constant) goes one by one.
    """
    results: list[tuple[Tensor, ...]] = []
    size = _at_once(pictures)
    for start in range(0, len(pictures), size):
        part, values = pictures[start : start + size], [each[start : start + size] for each in own]
        results += (
            _batched(function, part, values)
            if len(part) > 1
            else [function(*each) for each in zip(part, *values, strict=True)]
        )
    return results


def whole(function: Callable[..., Any], *values: Tensor) -> Any:
    """`function(*values)` of values with a leading batch axis: inside `torch.vmap` it is called once, with
    all pictures' values as plain tensors, elsewhere with a batch of one. Without gradients through it
    there."""
    return _Whole.apply(function, *values)


def stacked(values: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape with a leading axis: a view where they lie evenly in memory, as the pictures of
    one encoded batch do, else a copy."""
    view = _evenly_laid(values)
    return torch.stack(list(values)) if view is None else view


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(function: Callable[..., Any], *values: Tensor) -> Any:
        return function(*(value[None] for value in values))[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing to remember: what has gradients does not come this way."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[..., Any], *values: Tensor) -> Any:
        batches = [
            value.expand(info.batch_size, *value.shape) if axis is None else value.movedim(axis, 0)
            for value, axis in zip(values, in_dims[1:], strict=True)
        ]
        result = function(*batches)
        return result, tuple(0 for _ in result) if isinstance(result, tuple) else 0


def _at_once(pictures: Sequence[VisualTokens]) -> int:
    """How many pictures of one kind to decide in one go."""
    one, device = pictures[0], pictures[0].features.device.type
    held = max(values.numel() * values.element_size() for values in map(one.__getattribute__, _tensors(one)))
    if held > _LARGEST_PICTURE.get(device, held):
        return 1
    pairs = len(one) ** 2 * 4 * (1 if one.class_key is not None else one.heads)
    return max(1, _LARGEST_PAIRS.get(device, _PAIRS_ELSEWHERE) // pairs)


def _tensors(picture: VisualTokens) -> list[str]:
    """The names of the tensors that a picture has."""
    return [own.name for own in fields(picture) if own.metadata and getattr(picture, own.name) is not None]


def _batched(
    function: Callable[..., tuple[Tensor, ...]],
    pictures: Sequence[VisualTokens],
    own: Sequence[Sequence[Tensor]],
) -> list[tuple[Tensor, ...]]:
    held = {name: stacked([getattr(picture, name) for picture in pictures]) for name in _tensors(pictures[0])}

    def each(held: dict[str, Tensor], *values: Tensor) -> tuple[Tensor, ...]:
        return function(_inside(pictures, held), *values)

    try:
        results = torch.vmap(each)(held, *map(stacked, own))
    except RuntimeError as error:
        if not str(error).startswith(("vmap:", "Batching rule not implemented")):
            raise
        return [function(*each) for each in zip(pictures, *own, strict=True)]
    return list(zip(*(result.unbind() for result in results), strict=True))


def _inside(pictures: Sequence[VisualTokens], held: dict[str, Any]) -> VisualTokens:
    """One of the pictures as a function sees it under `torch.vmap`, for all of them."""
    one = pictures[0]
    embed, text = one.embed, one.text

    @cache
    def elsewhere(layer: Layer) -> Scores:
        scored = [picture.scored_by(layer) for picture in pictures]
        kinds = ("keys", "queries", "class_key", "register_keys")
        names = [name for name in kinds if getattr(scored[0], name) is not None]
        found = whole(
            lambda _: tuple(stacked([getattr(each, name) for each in scored]) for name in names),
            held["features"],
        )
        return replace(scored[0], **dict(zip(names, found, strict=True)))

    def embedded(features: Tensor) -> Tensor:
        assert embed is not None
        return whole(lambda all_of: embed(all_of.flatten(0, 1)).unflatten(0, all_of.shape[:2]), features)

    def words() -> Tensor:
        """Of all pictures; where one has fewer than others, rows of zeros follow."""
        own = [picture.text() for picture in pictures if picture.text is not None]
        if not all(map(len, own)):
            return min(own, key=len)
        return whole(lambda _: pad_sequence(own, batch_first=True).detach(), held["features"])

    return replace(
        one,
        **held,
        elsewhere=elsewhere if one.elsewhere else None,
        embed=embedded if embed else None,
        text=words if text else None,
        merged=None,
        placed=None,
        separators=None,
    )


def _evenly_laid(values: Sequence[Tensor]) -> Tensor | None:
    """The tensors as one view, where each begins as far after the one before it in the same memory."""
    first, second = values[0], values[min(1, len(values) - 1)]
    step = second.storage_offset() - first.storage_offset()
    if torch.is_grad_enabled() and any(value.requires_grad for value in values):
        return None  # a view of memory knows no gradients of what shares it
    for number, value in enumerate(values):
        if (
            value.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
            or value.storage_offset() != first.storage_offset() + number * step
            or value.stride() != first.stride()
        ):
            return None
    if step < 0:
        return None
    return first.as_strided((len(values), *first.shape), (step, *first.stride()), first.storage_offset())
