"""What stands where in the rows of a batch, at each depth of a language model that is pruned on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prumerge import ops

if TYPE_CHECKING:
    from prumerge.layers.prefix import Prefix


@dataclass(frozen=True)
class Layout:
    """What stands where at some depth; S columns, of the L the prompt had.

    Counts do not depend on data, so all but positions are worked out on the CPU.
    """

    columns: Int[Tensor, "B S"]
    """The place in the prompt whose token stands here (for padding: any that no other column has)."""
    valid: Bool[Tensor, "B S"]
    """False for padding."""
    pictures: tuple[tuple[int, Int[Tensor, "_"]], ...]
    """For each picture its row and the columns of its tokens."""
    positions: Int[Tensor, "B S"]
    """Position ids, on the model's device."""
    sizes: Float[Tensor, "B S"] | None = None
    """How many patches each column stands for (words and padding: 1), on the model's device; None: attention
    takes no notice."""

    @cached_property
    def bias(self) -> Float[Tensor, "B S"] | None:
        """What a column's size adds to attention logits: its logarithm (ToMe, section 3); None: all are 1."""
        if self.sizes is None or bool((self.sizes == 1).all()):
            return None
        return self.sizes.log()

    def cut(
        self,
        places: Sequence[Int[Tensor, "_"]],
        sizes: Sequence[Float[Tensor, "_"]] | None = None,
        *,
        compact: bool,
        on_the_right: bool,
    ) -> tuple[Layout, Int[Tensor, "B S2"]]:
        """The layout after each picture's tokens were reduced to the M at `places`, and the columns it takes.

        A picture's tokens move into the first M of its columns; `sizes` are theirs.
        """
        stays = self.valid.clone()
        for (row, columns), kept in zip(self.pictures, places, strict=True):
            stays[row, columns[len(kept) :]] = False
        order = ops.packed(stays, on_the_right=on_the_right)
        new_column = torch.empty_like(self.columns).scatter_(
            1, order, torch.arange(order.shape[1]).expand_as(order)
        )
        device = self.positions.device
        positions, held = self.positions, self.sizes
        moved, taken = self.moves(places)
        if compact:
            positions = positions - (self.valid & ~stays).cumsum(1).to(device)
        else:
            positions = (
                positions.flatten().index_copy(0, moved, positions.flatten()[taken]).view_as(positions)
            )
        if held is not None and sizes is not None:
            held = held.flatten().index_copy(0, moved, torch.cat(list(sizes))).view_as(held)
        return Layout(
            columns=self.columns.gather(1, order),
            valid=stays.gather(1, order),
            pictures=tuple(
                (row, new_column[row, columns[: len(kept)]])
                for (row, columns), kept in zip(self.pictures, places, strict=True)
            ),
            positions=positions.gather(1, order.to(device)),
            sizes=None if held is None else held.gather(1, order.to(device)),
        ), order

    def moves(self, places: Sequence[Int[Tensor, "_"]]) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"]]:
        """Into which places of the flattened batch the tokens go, and whose they stand for."""
        device, width = self.positions.device, self.valid.shape[1]
        starts = [(row * width + columns).to(device) for row, columns in self.pictures]
        into = [slots[: len(kept)] for slots, kept in zip(starts, places, strict=True)]
        return torch.cat(into), torch.cat([slots[kept] for slots, kept in zip(starts, places, strict=True)])

    def restored(self, hidden: Float[Tensor, "B S H"], length: int) -> Float[Tensor, "B L H"]:
        """Every column back in its place in a prompt of this length, zeros where one was cut."""
        columns = self.columns.to(hidden.device)[..., None].expand_as(hidden)
        return hidden.new_zeros(len(hidden), length, hidden.shape[-1]).scatter(1, columns, hidden)


@dataclass
class Pass:
    """The layouts of one prompt, which its cache remembers, and what the layers of one `forward` share."""

    full: Layout
    """Of the whole prompt."""
    on_the_right: bool
    """Where rows are padded."""
    asking: tuple[Int[Tensor, "_"], ...] = ()
    """For each picture the places in the prompt of the words that ask for it."""
    shares: tuple[Float[Tensor, "_"], ...] = ()
    """How much each of them counts."""
    layouts: dict[int, Layout] = field(default_factory=dict)
    """From each stage's depth on."""
    mask: Tensor | None = None
    """The caller's, of this `forward`."""
    prefix: Prefix | None = None
    """Of what keys and values become, where a method leaves all tokens; of a prompt that is being read."""
    prefill: bool = True
    read: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """For each picture the attention its tokens receive and their keys, of the layer looked at last."""
    shared: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What all layers of a stage are called with."""

    def stage(self, depth: int) -> int:
        """The depth of the latest stage before a layer; -1 if there is none."""
        return max((stage for stage in self.layouts if stage <= depth), default=-1)

    def layout(self, depth: int) -> Layout:
        """What stands where in a layer."""
        return self.layouts.get(self.stage(depth), self.full)

    def step(self, mask: Tensor | None) -> Pass:
        """A later `forward` on the same cache."""
        return replace(self, mask=mask, prefix=None, prefill=False, read=[], shared={})

    def remembered(self) -> Pass:
        """What the cache keeps of it."""
        return replace(self, mask=None, prefix=None, read=[], shared={})
