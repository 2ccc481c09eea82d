"""From a batch of encoded pictures to the visual tokens of each picture or video."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prumerge.models._vision import Encoded
from prumerge.scores import Layer, Scores
from prumerge.tokens import Merged, Separators, VisualTokens


def side(config: Any) -> int:
    """Patches along one side of a square picture in the tower."""
    return config.vision_config.image_size // config.vision_config.patch_size


def pictures(
    encoded: Encoded,
    rows: int,
    columns: int,
    *,
    frames: int = 1,
    behind: Float[Tensor, "B N H"] | None = None,
    pool: Callable[[Tensor], Tensor] = lambda patches: patches,
    **more: Any,
) -> list[VisualTokens]:
    """Each `frames` pictures of a batch as one picture or video.

    Features are the tower's output, or what comes from behind the projector of families that reduce there;
    `pool` makes keys and queries of patches those of tokens, where a token is made of several patches. Where
    the tower has merged patches (only with `frames=1` and features before the projector), tokens are a row.
    Register tokens (with the same) are separators: the language model reads them, no method chooses among
    them.
    """
    first, batch = encoded.first, encoded.features

    def scores(queries: Tensor, keys: Tensor) -> dict[str, Tensor]:
        """What `Scores` holds, of the whole batch."""
        own = {"queries": queries if encoded.class_token else pool(queries), "keys": pool(keys[:, first:])}
        if encoded.class_token:
            own["class_key"] = keys[:, 0]
        if encoded.registers:
            own["register_keys"] = keys[:, 1:first]
        return own

    def each(known: dict[str, Tensor]) -> list[dict[str, Any]]:
        """What each picture has of values [B, ...], by name: parts of one tensor, with the rows of all its
        frames."""
        if frames > 1:
            known = {name: values.unflatten(0, (-1, frames)).flatten(1, -2) for name, values in known.items()}
        return [dict(zip(known, one, strict=True)) for one in zip(*known.values(), strict=True)]

    @cache
    def scores_of(layer: Layer) -> list[dict[str, Any]]:
        assert encoded.scores_of is not None
        return each(scores(*encoded.scores_of(layer)))

    def elsewhere(number: int, layer: Layer) -> Scores:
        return Scores(heads=encoded.heads, **scores_of(layer)[number])

    known = scores(encoded.queries, encoded.keys)
    known["features"] = batch[:, first:] if behind is None else behind
    if encoded.class_token and behind is None:  # behind a projector there is no class token of the same kind
        known["class_feature"] = batch[:, 0]
    if encoded.sizes is not None:
        known["sizes"] = encoded.sizes[:, first:]
    grid = frames, rows, columns
    merged: list[Merged | None] = [None] * len(batch)
    if encoded.source is not None:
        merged = [Merged(grid, source) for source in encoded.source]
        grid = (1, 1, batch.shape[1] - first)
    return [
        VisualTokens(
            **held,
            heads=encoded.heads,
            grid=grid,
            elsewhere=partial(elsewhere, number) if encoded.scores_of else None,
            merged=merged[number],
            **(_behind(batch[number, 1:first], batch.shape[1] - first) if encoded.registers else {}),
            **more,
        )
        for number, held in enumerate(each(known))
    ]


def _behind(registers: Float[Tensor, "R C"], count: int) -> dict[str, Any]:
    """Where `count` tokens stand: behind the registers, which are separators of no row."""
    own = torch.arange(len(registers) + count)
    separators = Separators(own[: len(registers)], registers, torch.full((count,), -1))
    return {"placed": own[len(registers) :], "separators": separators}


def blocks(patches: Float[Tensor, "*batch S D"], columns: int, size: int) -> Float[Tensor, "*batch N D"]:
    """The mean over each block of size x size patches: what a token knows that a family makes of a block."""
    grid = patches.unflatten(-2, (-1, size, columns // size, size))
    return grid.mean(dim=(-4, -2)).flatten(-3, -2)
