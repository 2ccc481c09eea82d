"""From a batch of encoded pictures to the visual tokens of each picture or video."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from prumerge.models._vision import Encoded
from prumerge.scores import Layer, Scores
from prumerge.tokens import Merged, VisualTokens


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
    """
    batch = encoded.features
    features = batch[:, encoded.first :] if behind is None else behind

    def scores(queries: Tensor, keys: Tensor, here: slice) -> Scores:
        own = keys[here.start if frames == 1 else here, 0] if encoded.class_token else None
        asking = queries[here] if encoded.class_token else pool(queries[here])
        return Scores(
            queries=asking.flatten(0, 1),
            keys=pool(keys[here, encoded.first :]).flatten(0, 1),
            heads=encoded.heads,
            class_key=own,
        )

    of = None if encoded.scores_of is None else cache(encoded.scores_of)  # of all pictures at once

    def elsewhere(here: slice, layer: Layer) -> Scores:
        assert of is not None
        return scores(*of(layer), here)

    found = []
    for start in range(0, len(batch), frames):
        here = slice(start, start + frames)
        place = start if frames == 1 else here
        own = scores(encoded.queries, encoded.keys, here)
        # Behind a projector there is no class token of the same kind.
        class_feature = batch[place, 0] if encoded.class_token and behind is None else None
        grid, merged = (frames, rows, columns), None
        if encoded.source is not None:
            merged = Merged(grid, encoded.source[start])
            grid = (1, 1, batch.shape[1] - encoded.first)
        found.append(
            VisualTokens(
                **vars(own),
                features=features[here].flatten(0, 1),
                grid=grid,
                class_feature=class_feature,
                elsewhere=partial(elsewhere, here) if of else None,
                sizes=None if encoded.sizes is None else encoded.sizes[start, encoded.first :],
                merged=merged,
                **more,
            )
        )
    return found


def blocks(patches: Float[Tensor, "*batch S D"], columns: int, size: int) -> Float[Tensor, "*batch N D"]:
    """The mean over each block of size x size patches: what a token knows that a family makes of a block."""
    grid = patches.unflatten(-2, (-1, size, columns // size, size))
    return grid.mean(dim=(-4, -2)).flatten(-3, -2)
