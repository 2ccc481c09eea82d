"""Run a vision tower just as far as needed: the features the projector reads, and q and k of the layer after
them.

The tower's own modules are called one by one, so any attention implementation works, nothing is patched, and
layers whose output nobody reads are not run: LLaVA takes the second last hidden state, so of the last layer
only the layer norm, the keys and the class token's query are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


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

    @property
    def first(self) -> int:
        """Where the patches begin."""
        return int(self.class_token)

    def split(self, sizes: list[int]) -> list[Encoded]:
        """The batch in pieces of so many pictures."""
        shares = zip(
            self.features.split(sizes), self.queries.split(sizes), self.keys.split(sizes), strict=True
        )
        return [Encoded(*share, heads=self.heads, class_token=self.class_token) for share in shares]


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

    hidden = tower.embeddings(pixel_values)
    if kind == "clip_vision_model":
        hidden = tower.pre_layrnorm(hidden)
    states = {0: hidden}
    for depth in range(max(wanted)):
        hidden = blocks[depth](hidden, None)
        states[depth + 1] = hidden

    block = blocks[scoring]
    read = block.layer_norm1(states[scoring])
    return Encoded(
        features=states[wanted[0]]
        if len(wanted) == 1
        else torch.cat([states[depth] for depth in wanted], dim=-1),
        queries=block.self_attn.q_proj(read[:, :1] if _CLASS_TOKEN[kind] else read),
        keys=block.self_attn.k_proj(read),
        heads=tower.config.num_attention_heads,
        class_token=_CLASS_TOKEN[kind],
    )


# The towers whose modules are known, and whether their sequence begins with a class token.
_CLASS_TOKEN = {"clip_vision_model": True, "siglip_vision_model": False}
