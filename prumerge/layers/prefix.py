"""Fewer keys and values of the visual prefix in the layers of a language model: K' = W K and V' = W V.

Linformer (https://arxiv.org/abs/2006.04768) projects keys and values along the sequence. Its matrices are
learned; here W averages groups of visual tokens that a method made before the language model, the same in
every layer and head, and keys are averaged behind their rotary positions. Queries, and what MLPs read, stay
as they are: only attention and the KV cache become smaller.

A layer finds a cache that hands back the averages of what it is given, and remembers those; so attention
itself stays what it is, and later steps read the shorter cache. A row is visible from where its owner stands.
The logarithm of a row's size is added to its logits, so that the mean of equal keys counts as all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prumerge import ops
from prumerge.layers.layout import Layout, Pass
from prumerge.layers.masks import biased


@dataclass(frozen=True)
class Prefix:
    """Which S of a prompt's L columns keep keys and values, and whose."""

    layout: Layout
    """Of those that do."""

    into: Int[Tensor, "B L"]
    """Which of them the keys and values of each column go into; of padding S, which there is not."""

    weight: Float[Tensor, "B L"]
    """How much each column counts: the patches it stands for."""

    @classmethod
    def of(cls, now: Pass, owners: Int[Tensor, "B L"]) -> Prefix | None:
        """For a prompt in which keys and values of each column go into those of its owner; None where all
        are their own."""
        full, device = now.full, now.full.positions.device
        own = owners == torch.arange(owners.shape[1])
        if own.all():
            return None
        stays = full.valid & own
        order = ops.packed(stays, on_the_right=now.on_the_right)
        places = torch.full_like(owners, order.shape[1]).scatter(
            1, order, torch.arange(order.shape[1]).expand_as(order)
        )
        into = places.gather(1, owners).masked_fill(~full.valid, order.shape[1]).to(device)
        weight = torch.ones(into.shape, device=device) if full.sizes is None else full.sizes
        sizes = weight.new_zeros(len(into), order.shape[1] + 1).scatter_add(1, into, weight)[:, :-1]
        layout = Layout(
            columns=order,
            valid=stays.gather(1, order),
            pictures=tuple(
                (row, places[row, columns[stays[row, columns]]]) for row, columns in full.pictures
            ),
            positions=full.positions.gather(1, order.to(device)),
            sizes=sizes.clamp_min(1),  # of padding
        )
        return cls(layout, into, weight)

    def means(self, states: Float[Tensor, "B H L D"]) -> Float[Tensor, "B H S D"]:
        """The weighted mean of the keys or values that go into each column that stays."""
        assert self.layout.sizes is not None
        rows = states.float() * self.weight[:, None, :, None]
        places = self.into[:, None, :, None].expand_as(rows)
        total = rows.new_zeros(*rows.shape[:2], self.layout.sizes.shape[1] + 1, rows.shape[-1])
        total = total.scatter_add(2, places, rows)[:, :, :-1]
        return (total / self.layout.sizes[:, None, :, None]).to(states.dtype)

    def arguments(self, config: Any, hidden: Float[Tensor, "B L H"], cache: Any) -> dict[str, Any]:
        """What a layer that reads the prompt is called with: a mask of L queries for S keys, and a cache."""
        assert self.layout.bias is not None
        columns, valid = (each.to(hidden.device) for each in (self.layout.columns, self.layout.valid))
        reached = columns[:, None] <= torch.arange(hidden.shape[1], device=hidden.device)[:, None]
        mask = (reached & valid[:, None])[:, None]
        return {
            "attention_mask": biased(config, hidden, mask, self.layout.bias, 0),
            "past_key_values": _Averaging(self, cache),
            "position_ids": None,  # as where tokens are cut
        }


@dataclass(frozen=True)
class _Averaging:
    """As much of a cache as a layer asks for."""

    prefix: Prefix
    cache: Any

    def update(self, keys: Tensor, values: Tensor, layer: int, *more: Any, **named: Any) -> Any:
        """What attention reads; the layer's own cache keeps as much."""
        means = self.prefix.means(keys), self.prefix.means(values)
        return means if self.cache is None else self.cache.update(*means, layer, *more, **named)
