"""Reduction between the layers of a language model (FastV, PyramidDrop, SparseVLM).

The layers of one model get a `forward` of their own. At a stage the hidden states of the visual tokens go
through the method's matrix and the columns that are left over are cut; later layers run with the positions,
the mask and the KV cache of the shorter rows. Behind the last layer rows get their full length again (zeros
where tokens were dropped), so that nobody outside notices: logits, labels and answers keep their places.

Attention stays what it is (SDPA, flash attention): the few rows a method looks at are computed from q and k.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import types
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask

from prumerge import ops
from prumerge.models import family_of, optional, unwrap
from prumerge.places import LayerReducer, split
from prumerge.reducer import Reducer
from prumerge.tokens import VisualTokens


@dataclass(frozen=True)
class Layout:
    """What stands where in the rows of a batch at some depth; S columns, of the L the prompt had.

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

    def cut(
        self, places: Sequence[Int[Tensor, "_"]], *, compact: bool, on_the_right: bool
    ) -> tuple[Layout, Int[Tensor, "B S2"]]:
        """The layout after each picture's tokens were reduced to the M at `places`, and the columns it takes.

        A picture's tokens move into the first M of its columns.
        """
        stays = self.valid.clone()
        for (row, columns), kept in zip(self.pictures, places, strict=True):
            stays[row, columns[len(kept) :]] = False
        order = ops.packed(stays, on_the_right=on_the_right)
        new_column = torch.empty_like(self.columns).scatter_(
            1, order, torch.arange(order.shape[1]).expand_as(order)
        )
        device = self.positions.device
        positions = self.positions
        if compact:
            positions = positions - (self.valid & ~stays).cumsum(1).to(device)
        else:
            moved, taken = self.moves(places)
            positions = (
                positions.flatten().index_copy(0, moved, positions.flatten()[taken]).view_as(positions)
            )
        return Layout(
            columns=self.columns.gather(1, order),
            valid=stays.gather(1, order),
            pictures=tuple(
                (row, new_column[row, columns[: len(kept)]])
                for (row, columns), kept in zip(self.pictures, places, strict=True)
            ),
            positions=positions.gather(1, order.to(device)),
        ), order

    def moves(self, places: Sequence[Int[Tensor, "_"]]) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"]]:
        """Into which places of the flattened batch the tokens go, and whose they stand for."""
        device, width = self.positions.device, self.valid.shape[1]
        starts = [(row * width + columns).to(device) for row, columns in self.pictures]
        into = [slots[: len(kept)] for slots, kept in zip(starts, places, strict=True)]
        return torch.cat(into), torch.cat([slots[kept] for slots, kept in zip(starts, places, strict=True)])


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
    prefill: bool = True
    read: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """For each picture the attention its tokens receive and their keys, of the layer looked at last."""
    shared: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What all layers of a stage are called with."""

    def stage(self, depth: int) -> int:
        """The depth of the latest stage before a layer; -1 if there is none."""
        return max((stage for stage in self.layouts if stage <= depth), default=-1)

    def layout(self, depth: int) -> Layout:
        return self.layouts.get(self.stage(depth), self.full)

    def step(self, mask: Tensor | None) -> Pass:
        """A later `forward` on the same cache."""
        return replace(self, mask=mask, prefill=False, read=[], shared={})


def pruning(model: nn.Module, reducer: Reducer) -> AbstractContextManager[Inside | None]:
    """What a method does inside the language model, while a `with` lasts; None where it does nothing."""
    inside = split(reducer)[2]
    return nullcontext() if inside is None else Inside(model, inside)


def average_tokens(inside: Inside | None, handed: Sequence[float]) -> list[float]:
    """Visual tokens that a layer of the language model saw on average, for each picture of the latest prompt;
    without pruning inside it those that it was `handed`."""
    if inside is None:
        return list(handed)
    return [fmean(layers) for layers in inside.tokens_by_layer]


class Inside:
    """A method at work between the layers of `model`'s language model, until `remove()`.

    Only `forward` (and `generate`) of this one model and its decoder layers are touched. Prompts must come
    with encoded pictures (`mm_encoder_outputs`), as `prumerge.reduce` makes them. The KV cache remembers what
    each layer saw; beams, sampling and later turns on the cache work, prompts in chunks and candidates from
    assistants do not.
    """

    def __init__(self, model: nn.Module, method: LayerReducer) -> None:
        self.model = unwrap(model)
        self.method = method
        self.decoder = self.model.get_decoder()
        kind = self.model.config.model_type
        if optional(family_of(kind), "positions"):
            raise ValueError(
                f"{method}: models of type {kind!r} have positions in time and space, "
                f"which pruning between layers does not follow yet; {_INSTEAD}"
            )
        self.depths = method.depths(self.decoder.config.num_hidden_layers)
        _check(self.decoder, method, self.depths)
        self.tokens_by_layer: list[tuple[int, ...]] = []
        """Of each picture of the latest prompt: the visual tokens that each layer saw."""
        self._now: Pass | None = None
        self._before = {name: getattr(self.model, name) for name in _METHODS if hasattr(self.model, name)}
        self._layers = [layer.forward for layer in self.decoder.layers]
        self._own = [
            (module, {name: vars(module)[name] for name in _METHODS if name in vars(module)})
            for module in (self.model, *self.decoder.layers)
        ]
        for name in self._before:
            setattr(self.model, name, bound(self.model, name, "_prumerge_inside"))
        for layer in self.decoder.layers:
            layer.forward = bound(layer, "forward", "_prumerge_inside", "layer")
        for module, _ in self._own:
            module._prumerge_inside = self

    def remove(self) -> None:
        """Give the model and its layers their own methods back."""
        for module, own in self._own:
            for name in (*_METHODS, "_prumerge_inside"):
                vars(module).pop(name, None)
            vars(module).update(own)

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as None: a model that was saved comes back without its methods."""
        return type(None), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Inside:
        """A copied model has methods of its own."""
        memo[id(self)] = new = object.__new__(Inside)
        vars(new).update(copy.deepcopy(vars(self), memo))
        return new

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        original = self._before["generate"]
        named = kwargs | dict(zip(inspect.signature(original).parameters, args, strict=False))
        config = named.get("generation_config") or self.model.generation_config
        if named.get("inputs_embeds") is not None:
            raise ValueError(f"{self.method} cannot find pictures among inputs_embeds; {_INSTEAD}")
        for option, forbidden in _FORBIDDEN.items():
            if forbidden(named.get(option, getattr(config, option, None))):
                raise ValueError(
                    f"{self.method} prunes once, when the whole prompt is read into a cache that grows; "
                    f"leave out {option}"
                )
        return original(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        original = self._before["forward"]
        kwargs |= zip(inspect.signature(original).parameters, args, strict=False)
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        modality, pictures = next(iter((kwargs.get("mm_encoder_outputs") or {}).items()), ("image", None))
        memory: Pass | None = getattr(cache, "_prumerge_inside", None)
        filled = cache is not None and cache.get_seq_length() > 0
        if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
            raise ValueError(f"{self.method} needs an attention_mask of shape [B, L], and no static cache")
        if pictures is not None and filled:
            raise ValueError(
                "a new picture cannot join a cache that is in use; start a new cache with all pictures"
            )
        if pictures is None and not filled and kwargs.get("inputs_embeds") is not None:
            raise ValueError(f"{self.method} cannot find pictures among inputs_embeds; {_INSTEAD}")
        if pictures is not None and isinstance(pictures.pooler_output, Tensor):
            raise ValueError(
                f"{self.method}: models of type {self.model.config.model_type!r} read these tokens as one "
                f"tensor, which does not say whose they are; {_INSTEAD}"
            )
        if pictures is not None:
            counts = [len(one) for one in pictures.pooler_output]
            self._now = self._prompt(kwargs, counts, getattr(self.model.config, f"{modality}_token_id"))
        elif filled and memory is not None:
            self._now = memory.step(mask)
        else:
            return original(**kwargs)
        try:
            output = original(**kwargs)
        finally:
            now, self._now = self._now, None
        if now.prefill:
            layers = range(len(self._layers))
            seen = zip(
                *([len(columns) for _, columns in now.layout(d).pictures] for d in layers), strict=True
            )
            self.tokens_by_layer = list(seen)
        cache = getattr(output, "past_key_values", cache)
        if cache is not None:
            cache._prumerge_inside = replace(now, mask=None, read=[], shared={})
        return output

    def layer(self, layer: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What a decoder layer does in place of its own `forward`."""
        now, depth = self._now, layer.self_attn.layer_idx
        if now is None:
            return self._layers[depth](hidden, *args, **kwargs)
        if now.prefill and depth == 0:
            self._ask(now, hidden, kwargs["position_ids"])
        if now.prefill and depth in self.depths:
            if self.method.reads == 0:
                self._read(now, layer, hidden, kwargs | self._shared(now, depth, hidden, kwargs))
            hidden = self._cut(now, depth, hidden)
        kwargs |= self._shared(now, depth, hidden, kwargs)
        if now.prefill and depth + 1 in self.depths and self.method.reads == -1:
            self._read(now, layer, hidden, kwargs)
        hidden = self._layers[depth](hidden, *args, **kwargs)
        if now.prefill and depth == len(self._layers) - 1:
            hidden = _restored(hidden, now.layout(depth), now.full.columns.shape[1])
        return hidden

    def _prompt(self, inputs: dict[str, Any], counts: list[int], placeholder: int) -> Pass:
        """What stands where in a prompt, read on the CPU: the one wait for the device."""
        ids, mask, labels = (inputs.get(name) for name in ("input_ids", "attention_mask", "labels"))
        if ids is None:
            raise ValueError(f"{self.method} needs the prompt as input_ids, to know where the pictures are")
        image = ids == placeholder
        image, valid = torch.stack([image, torch.ones_like(image) if mask is None else mask.bool()]).cpu()
        columns = torch.arange(ids.shape[1])
        pictures = tuple((int(one[0, 0]), one[:, 1]) for one in image.nonzero().split(counts))
        prompt = valid if labels is None else valid & _before_answer(labels.cpu())
        last = torch.where(prompt, columns, -1).max(1).values
        for row, places in pictures:
            if int(last[row]) in places:
                raise ValueError(
                    f"{self.method} looks at pictures with the words that follow; "
                    "write some after the last <image>"
                )
        words = prompt & ~image
        return Pass(
            full=Layout(columns.expand_as(ids), valid, pictures, ids),  # positions come with the first layer
            on_the_right=bool(valid[:, 0].all()) and not bool(valid[:, -1].all()),
            asking=tuple((words[row] & (columns > places[-1])).nonzero()[:, 0] for row, places in pictures),
            mask=mask,
        )

    @torch.no_grad()
    def _ask(self, now: Pass, embedded: Float[Tensor, "B L H"], positions: Tensor) -> None:
        """Before the first layer: which words ask for each picture's tokens."""
        now.full = replace(now.full, positions=positions.expand(embedded.shape[:2]))
        asking, shares = [], []
        for (row, columns), words in zip(now.full.pictures, now.asking, strict=True):
            chosen = self.method.askers(
                embedded[row, columns.to(embedded.device)], embedded[row, words.to(embedded.device)]
            )
            if chosen is None:
                asking.append(words[-1:])
                shares.append(torch.ones(1, device=embedded.device))
            else:
                asking.append(words)
                shares.append(chosen / chosen.sum())
        now.asking, now.shares = tuple(asking), tuple(shares)

    @torch.no_grad()
    def _read(self, now: Pass, layer: Any, hidden: Float[Tensor, "B S H"], arguments: dict[str, Any]) -> None:
        """The attention that each picture's tokens receive in a layer from the words that ask (mean over
        heads)."""
        attention, layout = layer.self_attn, now.layout(layer.self_attn.layer_idx)
        turn = sys.modules[type(attention).__module__].apply_rotary_pos_emb
        cos, sin = (x.expand(len(hidden), -1, -1) for x in arguments["position_embeddings"])
        states = layer.input_layernorm(hidden)

        def heads(which: str, read: Tensor, cos: Tensor, sin: Tensor) -> Float[Tensor, "B heads S D"]:
            projected = getattr(attention, f"{which}_proj")(read)
            split = projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            norm = getattr(attention, f"{which}_norm", None) or getattr(attention, f"{which}_layernorm", None)
            split = split if norm is None else norm(split)
            turned, rest = split[..., : cos.shape[-1]], split[..., cos.shape[-1] :]  # Phi leaves a rest
            return torch.cat([turn(turned, turned, cos, sin)[0], rest], dim=-1)

        keys = heads("k", states, cos, sin)
        valid, place = layout.valid.to(hidden.device), torch.arange(hidden.shape[1], device=hidden.device)
        now.read = []
        for (row, columns), words, shares in zip(layout.pictures, now.asking, now.shares, strict=True):
            asking = torch.isin(layout.columns[row], words).nonzero()[:, 0].to(hidden.device)
            one = slice(row, row + 1)
            query = heads("q", states[one, asking], cos[one, asking], sin[one, asking])
            query = query[0].unflatten(0, (keys.shape[1], -1))  # [key heads, queries for each, T, D]
            logits = (query @ keys[row, :, None].mT).float() * attention.scaling
            visible = valid[row] & (place <= asking[:, None])
            received = logits.masked_fill(~visible, -torch.inf).softmax(-1).mean((0, 1))  # [T, S]
            columns = columns.to(hidden.device)
            now.read.append((shares @ received[:, columns], keys[row, :, columns].transpose(0, 1).flatten(1)))

    def _cut(self, now: Pass, depth: int, hidden: Float[Tensor, "B S H"]) -> Float[Tensor, "B S2 H"]:
        """Reduce each picture's tokens, and drop the columns that are left over."""
        layout, stage = now.layout(depth - 1), self.depths.index(depth)
        heads = self.decoder.config.num_key_value_heads
        reductions, rows = [], []
        for (row, columns), (_, whole), (relevance, keys) in zip(
            layout.pictures, now.full.pictures, now.read, strict=True
        ):
            tokens = VisualTokens(
                features=hidden[row, columns.to(hidden.device)],
                grid=(1, 1, len(columns)),
                keys=keys,
                queries=keys[:0],
                heads=heads,
                relevance=relevance,
            )
            with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
                reduction = self.method.at(stage, len(self.depths), len(whole))(tokens)
                if self.method.positions == "original":
                    reduction = reduction.rows(reduction.index.argsort(stable=True))
            reductions.append(reduction)
            rows.append(reduction.apply(tokens))
        places = [reduction.index for reduction in reductions]
        into, _ = layout.moves(places)
        hidden = hidden.flatten(0, 1).index_copy(0, into, torch.cat(rows)).view_as(hidden)
        now.layouts[depth], order = layout.cut(
            places, compact=self.method.positions == "compact", on_the_right=now.on_the_right
        )
        order = order.to(hidden.device)[..., None].expand(-1, -1, hidden.shape[-1])
        return hidden.gather(1, order)

    def _shared(self, now: Pass, depth: int, hidden: Tensor, arguments: dict[str, Any]) -> dict[str, Any]:
        """Mask and positions for a layer at some depth; as they came before the first stage."""
        stage = now.stage(depth)
        if stage < 0:
            return {}
        if stage not in now.shared:
            layout = now.layout(depth)
            cache = arguments.get("past_key_values")
            seen = 0 if cache is None else cache.get_seq_length(depth)
            rotary = arguments["position_embeddings"]
            if now.prefill:
                rotary = self.decoder.rotary_emb(hidden, layout.positions)
            elif self.method.positions == "compact":
                dropped = (now.full.valid.sum(1) - layout.valid.sum(1)).to(hidden.device)
                rotary = self.decoder.rotary_emb(hidden, arguments["position_ids"] - dropped[:, None])
            now.shared[stage] = {
                "attention_mask": self._mask(now, layout, hidden, seen),
                "position_embeddings": rotary,
                "position_ids": None,  # gaps in them would look like several packed prompts
            }
        return now.shared[stage]

    def _mask(self, now: Pass, layout: Layout, hidden: Tensor, seen: int) -> Tensor | None:
        """The causal mask of the attention in use, for rows that are padded as `layout` says and go on."""
        later = seen + hidden.shape[1] - layout.valid.shape[1]
        length = now.full.valid.shape[1]
        padding = None
        if now.mask is not None or not layout.valid.all():
            after = (
                torch.ones(len(hidden), later, dtype=torch.bool, device=hidden.device)
                if now.mask is None
                else now.mask[:, length : length + later].bool()
            )
            padding = torch.cat([layout.valid.to(hidden.device), after], dim=1)
        return create_causal_mask(
            config=self.decoder.config,
            inputs_embeds=hidden,
            attention_mask=padding,
            past_key_values=_Seen(seen),
        )


@dataclass(frozen=True)
class _Seen:
    """As much of a cache as a mask is made by: how many tokens a layer has seen."""

    length: int
    is_compileable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.length + query_length, 0


def bound(module: nn.Module, name: str, holder: str, does: str | None = None) -> types.MethodType:
    """A method of this one module that looks like its class's own and calls `does` of what `holder` names."""

    @functools.wraps(getattr(type(module), name))
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = (self, *args) if does else args
        return getattr(getattr(self, holder), does or name)(*given, **kwargs)

    return types.MethodType(method, module)


def _restored(hidden: Float[Tensor, "B S H"], layout: Layout, length: int) -> Float[Tensor, "B L H"]:
    """Every column back in its place in the prompt, zeros where one was cut."""
    columns = layout.columns.to(hidden.device)[..., None].expand_as(hidden)
    return hidden.new_zeros(len(hidden), length, hidden.shape[-1]).scatter(1, columns, hidden)


def _before_answer(labels: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The columns before the first that has a label."""
    return (labels != -100).cumsum(1) == 0


def _check(decoder: Any, method: LayerReducer, depths: tuple[int, ...]) -> None:
    """Raise ValueError for a language model or a depth that this file cannot work with."""
    layers = decoder.config.num_hidden_layers
    if list(depths) != sorted(set(depths)):
        raise ValueError(f"{method}: its stages end before layers {depths}, which must rise")
    if not all(0 <= depth < layers for depth in depths):
        raise ValueError(
            f"{method}: the language model has {layers} layers, so pruning can begin before layer "
            f"{layers - 1} at the latest, not {max(depths)}"
        )
    first = decoder.layers[0] if hasattr(decoder, "layers") else None
    attention = getattr(first, "self_attn", None)
    known = (
        hasattr(first, "input_layernorm")
        and all(hasattr(attention, name) for name in ("q_proj", "k_proj", "head_dim", "scaling", "layer_idx"))
        and hasattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb")
    )
    if not known:
        raise ValueError(
            f"{method}: the layers of {type(decoder).__name__} are not laid out as Llama's (input_layernorm, "
            "self_attn.q_proj and k_proj, rotary positions); use a method before the language model"
        )
    kinds = getattr(decoder.config, "layer_types", None)
    window = getattr(decoder.config, "sliding_window", None)
    if set(kinds) != {"full_attention"} if kinds else window:
        raise ValueError(
            f"{method}: this language model attends through sliding windows, which count the tokens between; "
            "use a method before the language model"
        )


_METHODS = ("forward", "generate")
_INSTEAD = "use a method before the language model"

# What a `generate` cannot do that prunes inside the language model.
_FORBIDDEN: dict[str, Any] = {
    "use_cache": lambda value: value is False,
    "cache_implementation": lambda value: value not in (None, "dynamic"),
    "prefill_chunk_size": bool,
    "prompt_lookup_num_tokens": bool,
    "assistant_model": lambda value: value is not None,
}
