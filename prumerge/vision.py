"""Run a vision tower just as far as needed: the features the projector reads, and q and k of the layer after
them.

The tower's own modules are called one by one, so any attention implementation works, nothing is patched, and
layers whose output nobody reads are not run: LLaVA takes the second last hidden state, so of the last layer
only the layer norm, the keys and the class token's query are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prumerge.tokens import Layer


@dataclass(frozen=True)
class Encoded:
    """A batch of encoded pictures; S is the sequence in the tower, class token first where there is one."""

    features: Float[Tensor, "B S C"]
    """The hidden states asked for, side by side."""

    queries: Float[Tensor, "B Q D"]
    """Of the class token (Q = 1), or of every patch where there is no class token (Q = S)."""
    keys: Float[Tensor, "B S D"]
    heads: int
    class_token: bool
    scores_of: Callable[[Layer], tuple[Float[Tensor, "B Q D"], Float[Tensor, "B S D"]]] | None = None
    """Queries and keys of the first layer, or of the one that wrote the features, when asked for."""

    @property
    def first(self) -> int:
        """Where the patches begin."""
        return int(self.class_token)

    def split(self, sizes: list[int]) -> list[Encoded]:
        """The batch in pieces of so many pictures."""
        scores = None if self.scores_of is None else cache(self.scores_of)  # of all pictures at once

        def scores_of(number: int, layer: Layer) -> tuple[Tensor, Tensor]:
            assert scores is not None
            queries, keys = scores(layer)
            return queries.split(sizes)[number], keys.split(sizes)[number]

        shares = zip(
            self.features.split(sizes), self.queries.split(sizes), self.keys.split(sizes), strict=True
        )
        return [
            Encoded(*share, self.heads, self.class_token, partial(scores_of, number) if scores else None)
            for number, share in enumerate(shares)
        ]


def encode(tower: Any, pixel_values: Float[Tensor, "B 3 H W"], layers: int | Sequence[int]) -> Encoded:
    """Encode pictures; `layers` index the tower's hidden states as in Transformers (-1 is the last layer's
    output).

    Raises ValueError for a tower that this function cannot read.
    """
    kind = tower.config.model_type
    if kind not in _CLASS_TOKEN:
        raise ValueError(
            f"the vision tower {kind!r} is not supported yet; there are: {', '.join(_CLASS_TOKEN)}"
        )
    blocks = tower.encoder.layers
    wanted = [layer % (len(blocks) + 1) for layer in ([layers] if isinstance(layers, int) else layers)]
    scoring = min(max(wanted), len(blocks) - 1)  # the layer that reads the features
    other = {"first": 0, "writer": max(max(wanted) - 1, 0)}

    hidden = tower.embeddings(pixel_values)
    if kind == "clip_vision_model":
        hidden = tower.pre_layrnorm(hidden)
    states = {0: hidden}
    for depth in range(max(wanted)):
        hidden = blocks[depth](hidden, None)
        if depth + 1 in {*wanted, scoring, *other.values()}:
            states[depth + 1] = hidden

    def scores(depth: int) -> tuple[Tensor, Tensor]:
        block = blocks[depth]
        read = block.layer_norm1(states[depth])
        queries = block.self_attn.q_proj(read[:, :1] if _CLASS_TOKEN[kind] else read)
        return queries, block.self_attn.k_proj(read)

    queries, keys = scores(scoring)
    return Encoded(
        features=states[wanted[0]]
        if len(wanted) == 1
        else torch.cat([states[depth] for depth in wanted], dim=-1),
        queries=queries,
        keys=keys,
        heads=tower.config.num_attention_heads,
        class_token=_CLASS_TOKEN[kind],
        scores_of=lambda layer: scores(other[layer]),
    )


# The towers whose modules are known, and whether their sequence begins with a class token.
_CLASS_TOKEN = {"clip_vision_model": True, "siglip_vision_model": False}
