"""From a batch of encoded pictures to the visual tokens of each picture or video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    batch = encoded.features
    features = batch[:, encoded.first :] if behind is None else behind

    def each(values: Tensor) -> Sequence[Tensor]:
        """What each picture has of values [B, S, D] (of several frames all rows), as parts of one tensor."""
        return values.reshape(-1, frames * values.shape[1], values.shape[2]).unbind()

    def of_class(values: Tensor) -> Sequence[Tensor]:
        return values[:, 0].unbind() if frames == 1 else values[:, 0].unflatten(0, (-1, frames)).unbind()

    def scores(queries: Tensor, keys: Tensor) -> list[Scores]:
        known = {
            "queries": each(queries if encoded.class_token else pool(queries)),
            "keys": each(pool(keys[:, encoded.first :])),
            **({"class_key": of_class(keys)} if encoded.class_token else {}),
            **({"register_keys": keys[:, 1 : encoded.first].unbind()} if encoded.registers else {}),
        }
        return [Scores(heads=encoded.heads, **one) for one in _transposed(known)]

    @cache
    def scores_of(layer: Layer) -> list[Scores]:
        assert encoded.scores_of is not None
        return scores(*encoded.scores_of(layer))

    def elsewhere(number: int, layer: Layer) -> Scores:
        return scores_of(layer)[number]

    known = {"features": each(features)}
    if encoded.class_token and behind is None:  # behind a projector there is no class token of the same kind
        known["class_feature"] = of_class(batch)
    if encoded.sizes is not None:
        known["sizes"] = encoded.sizes[:, encoded.first :].unbind()
    found = []
    for number, (own, held) in enumerate(
        zip(scores(encoded.queries, encoded.keys), _transposed(known), strict=True)
    ):
        grid, merged = (frames, rows, columns), None
        if encoded.source is not None:
            merged = Merged(grid, encoded.source[number])
            grid = (1, 1, batch.shape[1] - encoded.first)
        if encoded.registers:
            more |= _behind(batch[number, 1 : encoded.first], batch.shape[1] - encoded.first)
        found.append(
            VisualTokens(
                **vars(own),
                **held,
                grid=grid,
                elsewhere=partial(elsewhere, number) if encoded.scores_of else None,
                merged=merged,
                **more,
            )
        )
    return found


def _behind(registers: Float[Tensor, "R C"], count: int) -> dict[str, Any]:
    """Where `count` tokens stand: behind the registers, which are separators of no row."""
    own = torch.arange(len(registers) + count)
    separators = Separators(own[: len(registers)], registers, torch.full((count,), -1))
    return {"placed": own[len(registers) :], "separators": separators}


def _transposed(known: dict[str, Sequence[Tensor]]) -> list[dict[str, Any]]:
    """What each picture has, by name."""
    return [dict(zip(known, one, strict=True)) for one in zip(*known.values(), strict=True)]


def blocks(patches: Float[Tensor, "*batch S D"], columns: int, size: int) -> Float[Tensor, "*batch N D"]:
    """The mean over each block of size x size patches: what a token knows that a family makes of a block."""
    grid = patches.unflatten(-2, (-1, size, columns // size, size))
    return grid.mean(dim=(-4, -2)).flatten(-3, -2)
