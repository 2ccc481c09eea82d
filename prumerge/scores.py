"""What scores visual tokens in one layer of their encoder: queries, keys, and the attention they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from prumerge.errors import PrumergeError

Layer: TypeAlias = Literal["first", "writer"] | int | float
"""A layer besides the one that reads the features: the tower's first; the one that wrote them; the one with
this number, counted from 1; or the one this share of the way up (0.375 is 9 of 24)."""


def depth_of(layer: Layer, *, writer: int, layers: int) -> int:
    """Which of a tower's `layers` it is, counted from 0; `writer` is the one that wrote the features.

    Raises PrumergeError for a number that the tower has not.
    """
    if isinstance(layer, str):
        return {"first": 0, "writer": writer}[layer]
    number = layer if isinstance(layer, int) else max(1, math.floor(layer * layers + 1e-9))
    if not 1 <= number <= layers:
        raise PrumergeError(
            f"the vision tower has {layers} layers, counted from 1, and no layer {layer}; "
            "give the number of one of them, or a share such as 0.375"
        )
    return number - 1


TOKEN, CLASS, QUERY, REGISTER = ({"axis": axis} for axis in ("token", "class", "query", "register"))
"""What a tensor field has rows for: tokens; class tokens (none where one is for all frames); queries, which
are those of class tokens or of all tokens; register tokens."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Queries and keys of ONE picture or video in one layer; there is no batch axis.

    `N` tokens, `D` channels with all heads side by side, `Q` queries: one for each class token, or `N` where
    the encoder has none. Frames are encoded one by one and come one after the other.
    """

    keys: Float[Tensor, "N D"] = field(metadata=TOKEN)
    """The tokens' keys."""

    queries: Float[Tensor, "Q D"] = field(metadata=QUERY)
    """Whose attention scores the tokens: the class token's queries, or every token's."""

    heads: int

    class_key: Float[Tensor, "*frames D"] | None = field(default=None, metadata=CLASS)
    """The class token's own key, a column of the softmax; None for encoders without one (SigLIP, Qwen)."""

    register_keys: Float[Tensor, "R D"] | None = field(default=None, metadata=REGISTER)
    """Keys of tokens of one picture that are no patches and take attention from them (DINOv2's registers)."""

    def by_axis(
        self,
        *,
        token: Callable[[Tensor], Any],
        class_token: Callable[[Tensor], Any],
        query: Callable[[Tensor], Any],
        but: Collection[str] = (),
    ) -> dict[str, Any]:
        """Every tensor by the function of its axis, by field name; fields that are None, and those that are
        named, are left out. Registers have none: they stay as they are."""
        how = {"token": token, "class": class_token, "query": query}
        return {
            each.name: how[each.metadata["axis"]](value)
            for each in fields(self)
            if each.metadata.get("axis") in how
            and each.name not in but
            and (value := getattr(self, each.name)) is not None
        }

    def named(self) -> dict[str, Any]:
        """The fields of scores alone, by name, whatever else the value holds."""
        return {own.name: getattr(self, own.name) for own in fields(Scores)}

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> dict[str, Any]:
        """The tensor fields of parts (frames) one after the other, by name: class tokens get a row each; None
        where a part has none."""
        how: dict[str, Callable[[list[Tensor]], Tensor]]
        how = {"token": torch.cat, "query": torch.cat, "class": torch.stack}
        each = {own: [getattr(part, own.name) for part in parts] for own in fields(cls) if own.metadata}
        return {
            own.name: None if any(value is None for value in values) else how[own.metadata["axis"]](values)
            for own, values in each.items()
        }

    def received(
        self, parts: int, *, split_heads: bool, sizes: Float[Tensor, "N"] | None = None
    ) -> Float[Tensor, "N"]:
        """Attention that each token receives, in float32, within each of `parts` equal parts (frames): from
        the class token, or the mean over all tokens.

        `sizes` say how many patches each token holds: attention gets the logarithm on its logits
        (proportional attention, ToMe 3).
        """
        heads = self.heads if split_heads else 1

        def by_head(values: Tensor) -> Tensor:
            return values.unflatten(-1, (heads, -1)).transpose(1, 2)

        given = [self.queries, self.class_key, self.register_keys, self.keys]
        query, *keys = [
            values.float().reshape(parts, -1, values.shape[-1]) for values in given if values is not None
        ]
        own = keys[-1].shape[1]
        scale = (query.shape[-1] // heads) ** -0.5
        if query.shape[1] == 1:  # a row for each head, zero elsewhere: keys are read once, as they lie
            each_head = torch.eye(heads, device=query.device)[..., None]
            query = (query.unflatten(-1, (heads, -1)) * each_head).flatten(-2)
        else:
            query, keys = by_head(query), [by_head(each) for each in keys]
        # [parts, heads, (queries of a part,) keys of a part]
        logits = [query @ each.mT * scale for each in keys]
        if sizes is not None:
            logits[-1] = logits[-1] + sizes.log().view(parts, *[1] * (query.ndim - 2), -1)
        weights = torch.cat(logits, dim=-1).softmax(dim=-1) if len(logits) > 1 else logits[0].softmax(dim=-1)
        return weights.flatten(1, -2).mean(dim=1)[:, -own:].flatten()
