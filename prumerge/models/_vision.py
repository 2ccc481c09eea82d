"""Run a vision tower just as far as needed: the features the projector reads, and q and k of the layer after
them.

The tower's own modules are called one by one, so any attention implementation works, nothing is patched, and
layers whose output nobody reads are not run: LLaVA takes the second last hidden state, so of the last layer
only the layer norm, the keys and the class token's query are computed. On the way a method may merge tokens
between attention and MLP of each layer (ToMe).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from prumerge import ops
from prumerge.errors import PrumergeError
from prumerge.models._weights import within_call
from prumerge.scores import Layer, depth_of


@runtime_checkable
class Merging(Protocol):
    """What a method does inside the tower; `prumerge.reducer.TowerReducer` says more."""

    @property
    def proportional(self) -> bool: ...
    def schedule(self, patches: int, blocks: int) -> list[int]: ...
    def match(self, keys: Tensor, r: int, *, class_token: bool) -> Tensor: ...


@dataclass(frozen=True)
class Encoded:
    """A batch of encoded pictures; S is the sequence in the tower: the class token first where there is one,
    then register tokens if there are any, then the patches."""

    features: Float[Tensor, "B S C"]
    """The hidden states asked for, side by side."""

    queries: Float[Tensor, "B Q D"]
    """Of the class token (Q = 1), or of every patch where there is no class token (Q = S)."""
    keys: Float[Tensor, "B S D"]
    heads: int
    class_token: bool
    scores_of: Callable[[Layer], tuple[Float[Tensor, "B Q D"], Float[Tensor, "B S D"]]] | None = None
    """Queries and keys of another layer, when asked for; None where tokens were merged on the way, which
    these layers had more of."""
    sizes: Float[Tensor, "B S"] | None = None
    """Where tokens were merged on the way: how many patches each holds."""
    source: Int[Tensor, "B P"] | None = None
    """And which token each of the P patches went into, counted from the first patch."""
    registers: int = 0
    """Tokens behind the class token that are no patches (DINOv2 with registers, arXiv 2309.16588)."""

    @property
    def first(self) -> int:
        """Where the patches begin."""
        return self.class_token + self.registers

    def split(self, sizes: list[int]) -> list[Encoded]:
        """The batch in pieces of so many pictures."""
        scores = None if self.scores_of is None else cache(self.scores_of)  # of all pictures at once

        def scores_of(number: int, layer: Layer) -> tuple[Tensor, Tensor]:
            assert scores is not None
            queries, keys = scores(layer)
            return queries.split(sizes)[number], keys.split(sizes)[number]

        def share(tensor: Tensor | None) -> Sequence[Tensor | None]:
            return [None] * len(sizes) if tensor is None else tensor.split(sizes)

        shares = zip(
            self.features.split(sizes),
            self.queries.split(sizes),
            self.keys.split(sizes),
            share(self.sizes),
            share(self.source),
            strict=True,
        )
        return [
            replace(
                self,
                features=features,
                queries=queries,
                keys=keys,
                scores_of=partial(scores_of, number) if scores else None,
                sizes=held,
                source=source,
            )
            for number, (features, queries, keys, held, source) in enumerate(shares)
        ]


def encode(
    tower: Any,
    pixel_values: Float[Tensor, "B 3 H W"],
    layers: int | Sequence[int],
    merging: Merging | None = None,
) -> Encoded:
    """Encode pictures; `layers` index the tower's hidden states as in Transformers (-1 is the last layer's
    output).

    With `merging`, tokens come in the order of the first patch in each.

    Raises ValueError for a tower that this function cannot read.
    """
    kind = tower.config.model_type
    if kind not in _CLASS_TOKEN:
        raise PrumergeError(
            f"the vision tower {kind!r} is not supported yet; there are: {', '.join(_CLASS_TOKEN)}"
        )
    blocks = tower.encoder.layer if kind.startswith("dinov2") else tower.encoder.layers
    wanted = [layer % (len(blocks) + 1) for layer in ([layers] if isinstance(layers, int) else layers)]
    scoring = min(max(wanted), len(blocks) - 1)  # the layer that reads the features
    writer = max(max(wanted) - 1, 0)

    hidden = tower.embeddings(pixel_values)
    if kind == "clip_vision_model":
        hidden = tower.pre_layrnorm(hidden)
    class_token, registers = _CLASS_TOKEN[kind], getattr(tower.config, "num_register_tokens", 0)
    first = class_token + registers
    counts, sizes, source = [0] * max(wanted), None, None
    if merging is not None:
        if len(wanted) > 1:
            raise PrumergeError(
                "merging inside the vision tower leaves fewer tokens in every layer, so that features of "
                f"several ({layers}) do not fit together; give one vision_feature_layer"
            )
        # Not in the layer that reads the features: its keys are those of the same tokens.
        counts[:scoring] = merging.schedule(hidden.shape[1] - first, scoring)
    states = {0: hidden}
    for depth, r in enumerate(counts):
        block = blocks[depth]
        bias = _bias(tower, sizes, hidden.dtype) if merging is not None and merging.proportional else None
        if merging is not None and r:
            if sizes is None or source is None:
                sizes = torch.ones(hidden.shape[:2], device=hidden.device)
                source = torch.arange(hidden.shape[1], device=hidden.device).expand(len(hidden), -1)
            match = partial(_match, partial(merging.match, r=r, class_token=class_token), registers)
            hidden, sizes, row = within_call(block, partial(_merged, block, match, r, bias), hidden, sizes)
            source = row.gather(1, source)
        else:
            hidden = block(hidden, bias)
        if depth + 1 in {*wanted, scoring, writer}:
            states[depth + 1] = hidden
    if sizes is not None and source is not None:
        order, source = _in_order(source, sizes.shape[1])
        for depth in {scoring, *wanted}:
            states[depth] = states[depth].gather(1, order[..., None].expand_as(states[depth]))
        sizes, source = sizes.gather(1, order), source[:, first:] - first

    def scored(depth: int) -> tuple[Tensor, Tensor]:
        known = max(each for each in states if each <= depth)
        hidden = states[known]
        with torch.set_grad_enabled(torch.is_grad_enabled() and known == depth):
            # Once more: holding what each layer left would cost every method.
            for block in blocks[known:depth]:
                hidden = block(hidden, None)
        return within_call(blocks[depth], partial(_scored, blocks[depth], class_token), hidden)

    def scores_of(layer: Layer) -> tuple[Tensor, Tensor]:
        return scored(depth_of(layer, writer=writer, layers=len(blocks)))

    queries, keys = scored(scoring)
    return Encoded(
        features=states[wanted[0]]
        if len(wanted) == 1
        else torch.cat([states[depth] for depth in wanted], dim=-1),
        queries=queries,
        keys=keys,
        heads=tower.config.num_attention_heads,
        class_token=class_token,
        scores_of=scores_of if source is None else None,
        sizes=sizes if merging is not None and merging.proportional else None,
        source=source,
        registers=registers,
    )


class _Parts(NamedTuple):
    """A layer: x + scale1(attention(norm1(x))), and of that x + scale2(mlp(norm2(x)))."""

    norm1: Any
    attention: Any
    scale1: Callable[[Tensor], Tensor]
    norm2: Any
    mlp: Any
    scale2: Callable[[Tensor], Tensor]


def _parts(block: Any) -> _Parts:
    """A layer's modules; DINOv2 scales what they add, and in training leaves some of it out."""
    if hasattr(block, "layer_norm1"):
        return _Parts(block.layer_norm1, block.self_attn, _as_it_is, block.layer_norm2, block.mlp, _as_it_is)
    drop, first, second = block.drop_path, block.layer_scale1, block.layer_scale2
    return _Parts(
        block.norm1,
        block.attention,
        lambda added: drop(first(added)),
        block.norm2,
        block.mlp,
        lambda added: drop(second(added)),
    )


def _as_it_is(added: Tensor) -> Tensor:
    return added


def _scored(block: Any, class_token: bool, hidden: Float[Tensor, "B S C"]) -> tuple[Tensor, Tensor]:
    """Queries (of the class token, if there is one) and keys that a layer makes of its input."""
    parts = _parts(block)
    read = parts.norm1(hidden)
    return parts.attention.q_proj(read[:, :1] if class_token else read), parts.attention.k_proj(read)


def _merged(
    block: Any,
    match: Callable[[Tensor], Tensor],
    r: int,
    bias: Tensor | None,
    hidden: Float[Tensor, "B S C"],
    sizes: Float[Tensor, "B S"],
) -> tuple[Float[Tensor, "B S2 C"], Float[Tensor, "B S2"], Int[Tensor, "B S"]]:
    """A layer that merges `r` tokens between attention and MLP: its output, the sizes of its tokens, and
    which of them each token went into."""
    parts = _parts(block)
    read = parts.norm1(hidden)
    hidden = hidden + parts.scale1(parts.attention(read, attention_mask=bias)[0])
    row = match(_mean_keys(parts.attention, read))
    hidden, sizes = ops.merged(hidden, sizes, row, hidden.shape[1] - r)
    return hidden + parts.scale2(parts.mlp(parts.norm2(hidden))), sizes, row


def _match(
    match: Callable[[Tensor], Tensor], registers: int, keys: Float[Tensor, "B S D"]
) -> Int[Tensor, "B S"]:
    """Which token each one goes into; registers, which stand behind the class token, stay as they are."""
    if not registers:
        return match(keys)
    row = match(torch.cat([keys[:, :1], keys[:, 1 + registers :]], dim=1))  # the class token goes into 0
    own = torch.arange(1, 1 + registers, device=keys.device).expand(len(keys), -1)
    return torch.cat([row[:, :1], own, row[:, 1:] + registers], dim=1)


def _bias(tower: Any, sizes: Tensor | None, dtype: torch.dtype) -> Float[Tensor, "B 1 1 S"] | None:
    """Proportional attention (ToMe, section 3): what a merged token's size adds to its logits."""
    if sizes is None:
        return None
    if "flash" in tower.config._attn_implementation:
        raise PrumergeError(
            "flash attention takes no bias for the size of merged tokens; "
            "load the vision tower with sdpa, or add proportional=off"
        )
    return sizes.log().to(dtype)[:, None, None]


def _mean_keys(attention: Any, read: Float[Tensor, "B S C"]) -> Float[Tensor, "B S D"]:
    """Keys averaged over heads."""
    project, split = attention.k_proj, (-1, attention.head_dim)
    if type(project) is not nn.Linear:
        return project(read).unflatten(-1, split).mean(-2)

    def by_the_mean(read: Tensor) -> Tensor:  # which is the mean of the projections by all heads
        bias = None if project.bias is None else project.bias.view(split).mean(0)
        return F.linear(read, project.weight.unflatten(0, split).mean(0), bias)

    return within_call(project, by_the_mean, read)


def _in_order(source: Int[Tensor, "B S0"], count: int) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B S0"]]:
    """The order of `count` tokens by the first patch in each, and which token in that order each patch went
    into."""
    patches = torch.arange(source.shape[1], device=source.device).expand_as(source)
    first = source.new_full((len(source), count), source.shape[1])
    order = first.scatter_reduce(1, source, patches, "amin").argsort(1)
    return order, order.argsort(1).gather(1, source)


# The towers whose modules are known, and whether their sequence begins with a class token.
_CLASS_TOKEN = {
    "clip_vision_model": True,
    "siglip_vision_model": False,
    "dinov2": True,
    "dinov2_with_registers": True,
}
