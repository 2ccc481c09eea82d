"""Reduction between the layers of a language model (FastV, PyramidDrop, SparseVLM).

The layers of one model get a `forward` of their own. At a stage the hidden states of the visual tokens go
through the method's matrix and the columns that are left over are cut; later layers run with the positions,
the mask and the KV cache of the shorter rows. Behind the last layer rows get their full length again (zeros
where tokens were dropped), so that nobody outside notices: logits, labels and answers keep their places.

Attention stays what it is (SDPA, flash attention): the few rows a method looks at are computed from q and k.
With sizes, a token that stands for s patches gets log(s) on the logits of its key in every layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from statistics import fmean
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from prumerge.errors import PrumergeError
from prumerge.layers.attention import received
from prumerge.layers.binding import Bound
from prumerge.layers.checks import check_attention, check_depths
from prumerge.layers.layout import Layout, Pass
from prumerge.layers.masks import biased, causal
from prumerge.layers.prefix import Prefix
from prumerge.layers.sized import attending, by_channels
from prumerge.models import family_of, unwrap
from prumerge.reducer import LayerReducer
from prumerge.tokens import VisualTokens


def pruning(
    model: nn.Module,
    method: LayerReducer | None,
    sizes: Float[Tensor, "B L"] | None = None,
    owners: Int[Tensor, "B L"] | None = None,
) -> AbstractContextManager[Inside | None]:
    """What a method does inside the language model, while a `with` lasts; None where it does nothing.

    `sizes` and `owners` are those of the prompt's columns (`splice.Columns`), for attention in proportion to
    sizes, and for methods that shorten keys and values.
    """
    return nullcontext() if method is None and sizes is None else Inside(model, method, sizes, owners)


def average_tokens(inside: LayerPruning | None, handed: Sequence[float]) -> list[float]:
    """Visual tokens that a layer of the language model saw on average, for each picture of the latest prompt;
    without pruning inside it those that it was `handed`."""
    if inside is None or inside.method is None:
        return list(handed)
    return [fmean(layers) for layers in inside.tokens_by_layer]


class LayerPruning(Bound):
    """A method at work between the layers of `model`'s language model, from `start()` to `unbind()`; or none,
    and attention in proportion to sizes alone. One that cannot work there is refused before anything changes.

    Only the decoder layers of this one model are touched; whoever calls its `forward` and `generate` does so
    through `run` and after `check_generate`. Prompts must come with encoded pictures (`mm_encoder_outputs`),
    as `prumerge.reduce` makes them. The KV cache remembers what each layer saw; beams, sampling and later
    turns on the cache work, prompts in chunks and candidates from assistants do not. Threads do not see each
    other.
    """

    holder = "_prumerge_layers"

    def __init__(self, model: nn.Module, method: LayerReducer | None) -> None:
        super().__init__()
        self.model = unwrap(model)
        self.method = method
        self.name, self.instead = (str(method), _INSTEAD) if method else ("size_bias", "leave out size_bias")
        self.decoder = self.model.get_decoder()
        self.depths: tuple[int, ...] = ()
        self.reads = False
        """Whether the method looks at what tokens receive, and drops some: then words must follow them."""
        if method is not None:
            kind = self.model.config.model_type
            if family_of(kind).positions is not None:
                raise PrumergeError(
                    f"{method}: models of type {kind!r} have positions in time and space, "
                    f"which pruning between layers does not follow yet; {_INSTEAD}"
                )
            self.depths = method.depths(self.decoder.config.num_hidden_layers)
            check_depths(self.decoder, method, self.depths)
            self.reads = not method.prefix
        check_attention(self.decoder, self.name, self.instead)
        self.tokens_by_layer: list[tuple[int, ...]] = []
        """Of each picture of the latest prompt: the visual tokens that each layer saw."""
        self._now: dict[int, Pass] = {}
        self._told: dict[int, tuple[Tensor | None, Tensor | None]] = {}
        """By thread: the `forward` that runs, and sizes and owners of the columns of the next prompt."""

    def start(self) -> None:
        """Answer for the layers, until `unbind()`."""
        self._layers = [self.bind(layer, "forward", does="layer")["forward"] for layer in self.decoder.layers]

    @contextmanager
    def told(self, sizes: Float[Tensor, "B L"] | None, owners: Int[Tensor, "B L"] | None) -> Iterator[None]:
        """What the columns of the next prompt of this thread are, while a `with` lasts (`splice.Columns`)."""
        self._told[get_ident()] = sizes, owners
        try:
            yield
        finally:
            del self._told[get_ident()]

    def check_generate(self, named: dict[str, Any]) -> None:
        """Raise PrumergeError for a `generate` that cannot be done with these arguments."""
        config = named.get("generation_config") or self.model.generation_config
        if named.get("inputs_embeds") is not None:
            raise PrumergeError(f"{self.name} cannot find pictures among inputs_embeds; {self.instead}")
        for option, forbidden in _FORBIDDEN.items():
            if forbidden(named.get(option, getattr(config, option, None))):
                raise PrumergeError(
                    f"{self.name} needs the whole prompt read at once, into a cache that grows; "
                    f"leave out {option}"
                )

    def run(self, original: Any, kwargs: dict[str, Any]) -> Any:
        """The model's own `forward`, its layers pruned."""
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        modality, pictures = next(iter((kwargs.get("mm_encoder_outputs") or {}).items()), ("image", None))
        memory: Pass | None = getattr(cache, "_prumerge_layers", None)
        filled = cache is not None and cache.get_seq_length() > 0
        if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
            raise PrumergeError(f"{self.name} needs an attention_mask of shape [B, L], and no static cache")
        if pictures is not None and filled:
            raise PrumergeError(
                "a new picture cannot join a cache that is in use; start a new cache with all pictures"
            )
        if pictures is None and not filled and kwargs.get("inputs_embeds") is not None:
            raise PrumergeError(f"{self.name} cannot find pictures among inputs_embeds; {self.instead}")
        if self.depths and pictures is not None and isinstance(pictures.pooler_output, Tensor):
            raise PrumergeError(
                f"{self.method}: models of type {self.model.config.model_type!r} read these tokens as one "
                f"tensor, which does not say whose they are; {_INSTEAD}"
            )
        if pictures is not None:
            counts = [len(one) for one in pictures.pooler_output] if self.depths else []
            now = self._prompt(kwargs, counts, getattr(self.model.config, f"{modality}_token_id"))
        elif filled and memory is not None:
            now = memory.step(mask)
        else:
            return original(**kwargs)
        self._now[get_ident()] = now
        try:
            output = original(**kwargs)
        finally:
            del self._now[get_ident()]
        if now.prefill:
            layouts = [now.full if now.prefix else now.layout(d) for d in range(len(self._layers))]
            seen = zip(*([len(columns) for _, columns in one.pictures] for one in layouts), strict=True)
            self.tokens_by_layer = list(seen)
        cache = getattr(output, "past_key_values", cache)
        if cache is not None:
            cache._prumerge_layers = now.remembered()
        return output

    def layer(self, layer: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What a decoder layer does in place of its own `forward`."""
        now, depth = self._now.get(get_ident()), layer.self_attn.layer_idx
        if now is None:
            return self._layers[depth](hidden, *args, **kwargs)
        if now.prefix and layer.training and getattr(layer, "gradient_checkpointing", False):
            raise PrumergeError(
                f"{self.method} makes keys and values fewer by what layers take for a cache, and "
                "checkpointed layers take none; leave out gradient checkpointing"
            )
        if now.prefill and depth == 0 and self.reads:
            self._ask(now, hidden, kwargs["position_ids"])
        if now.prefill and depth in self.depths and self.reads:
            assert self.method is not None
            if self.method.reads == 0:
                arguments = kwargs | self._shared(now, depth, hidden, kwargs)
                now.read = received(layer, hidden, arguments["position_embeddings"], now)
            hidden = self._cut(now, depth, hidden)
        kwargs |= self._shared(now, depth, hidden, kwargs)
        if (
            now.prefill
            and depth + 1 in self.depths
            and self.method
            and self.reads
            and self.method.reads == -1
        ):
            now.read = received(layer, hidden, kwargs["position_embeddings"], now)
        bias = now.layout(depth).bias
        unmasked = kwargs["attention_mask"] is None
        with attending(bias) if bias is not None and unmasked else nullcontext():
            hidden = self._layers[depth](hidden, *args, **kwargs)
        if now.prefill and now.layouts and not now.prefix and depth == len(self._layers) - 1:
            hidden = now.layout(depth).restored(hidden, now.full.columns.shape[1])
        return hidden

    def _prompt(self, inputs: dict[str, Any], counts: list[int], placeholder: int) -> Pass:
        """What stands where in a prompt, read on the CPU: the one wait for the device."""
        ids, mask, labels = (inputs.get(name) for name in ("input_ids", "attention_mask", "labels"))
        if ids is None:
            raise PrumergeError(f"{self.name} needs the prompt as input_ids, to know where the pictures are")
        image = ids == placeholder
        image, valid = torch.stack([image, torch.ones_like(image) if mask is None else mask.bool()]).cpu()
        columns = torch.arange(ids.shape[1])
        each = image.nonzero().split(counts) if counts else ()
        pictures = tuple((int(one[0, 0]), one[:, 1]) for one in each)
        prompt = valid if labels is None else valid & _before_answer(labels.cpu())
        last = torch.where(prompt, columns, -1).max(1).values
        for row, places in pictures:
            if self.reads and int(last[row]) in places:
                raise PrumergeError(
                    f"{self.method} looks at pictures with the words that follow; "
                    "write some after the last <image>"
                )
        words = prompt & ~image
        sizes, owners = (  # beams have those of their row
            None if told is None else told.repeat_interleave(len(ids) // len(told), dim=0)
            for told in self._told.get(get_ident(), (None, None))
        )
        now = Pass(
            # Positions come with the first layer.
            full=Layout(
                columns.expand_as(ids), valid, pictures, ids, None if sizes is None else sizes.to(ids.device)
            ),
            on_the_right=bool(valid[:, 0].all()) and not bool(valid[:, -1].all()),
            asking=tuple((words[row] & (columns > places[-1])).nonzero()[:, 0] for row, places in pictures),
            mask=mask,
        )
        if self.method is not None and self.method.prefix:
            if owners is None:
                raise PrumergeError(
                    f"{self.method} decides before the language model, and this prompt came without what it "
                    f"decided; use it by `with prumerge.attach(model, {str(self.method)!r})`"
                )
            now.prefix = Prefix.of(now, owners)
            now.layouts = {self.depths[0]: now.prefix.layout} if now.prefix else {}
        return now

    @torch.no_grad()
    def _ask(self, now: Pass, embedded: Float[Tensor, "B L H"], positions: Tensor) -> None:
        """Before the first layer: which words ask for each picture's tokens."""
        assert self.method is not None
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

    def _cut(self, now: Pass, depth: int, hidden: Float[Tensor, "B S H"]) -> Float[Tensor, "B S2 H"]:
        """Reduce each picture's tokens, and drop the columns that are left over."""
        assert self.method is not None
        layout, stage = now.layout(depth - 1), self.depths.index(depth)
        heads = self.decoder.config.num_key_value_heads
        reductions, rows, sizes = [], [], []
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
            if layout.sizes is not None:
                sizes.append(reduction.sizes(layout.sizes[row, columns.to(hidden.device)]))
        places = [reduction.index for reduction in reductions]
        into, _ = layout.moves(places)
        hidden = hidden.flatten(0, 1).index_copy(0, into, torch.cat(rows)).view_as(hidden)
        now.layouts[depth], order = layout.cut(
            places, sizes or None, compact=self.method.positions == "compact", on_the_right=now.on_the_right
        )
        order = order.to(hidden.device)[..., None].expand(-1, -1, hidden.shape[-1])
        return hidden.gather(1, order)

    def _shared(self, now: Pass, depth: int, hidden: Tensor, arguments: dict[str, Any]) -> dict[str, Any]:
        """Mask and positions for a layer at some depth; before the first stage as they come, sizes aside."""
        stage, layout = now.stage(depth), now.layout(depth)
        cache = arguments.get("past_key_values")
        if stage not in now.shared and stage >= 0 and now.prefix is not None:
            now.shared[stage] = now.prefix.arguments(self.decoder.config, hidden, cache)
        if stage not in now.shared:
            seen = 0 if cache is None else cache.get_seq_length(depth)
            shared = {} if stage < 0 else self._shorter(now, layout, seen, hidden, arguments)
            if layout.bias is not None:
                config, mask = self.decoder.config, {**arguments, **shared}["attention_mask"]
                if not by_channels(config, hidden, mask, seen):
                    shared["attention_mask"] = biased(config, hidden, mask, layout.bias, seen)
            now.shared[stage] = shared
        return now.shared[stage]

    def _shorter(
        self, now: Pass, layout: Layout, seen: int, hidden: Tensor, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """Mask and positions of rows that were cut; a layer's cache has `seen` so many columns."""
        assert self.method is not None
        rotary = arguments["position_embeddings"]
        if now.prefill:
            rotary = self.decoder.rotary_emb(hidden, layout.positions)
        elif self.method.positions == "compact":
            dropped = (now.full.valid.sum(1) - layout.valid.sum(1)).to(hidden.device)
            rotary = self.decoder.rotary_emb(hidden, arguments["position_ids"] - dropped[:, None])
        return {
            "attention_mask": causal(
                self.decoder.config, hidden, layout, now.mask, now.full.valid.shape[1], seen
            ),
            "position_embeddings": rotary,
            "position_ids": None,  # gaps in them would look like several packed prompts
        }


class Inside(LayerPruning):
    """`LayerPruning` that answers for the model's own `forward` and `generate` as well; `sizes` are those of
    the columns of every prompt that comes."""

    holder = "_prumerge_inside"

    def __init__(
        self,
        model: nn.Module,
        method: LayerReducer | None,
        sizes: Float[Tensor, "B L"] | None = None,
        owners: Int[Tensor, "B L"] | None = None,
    ) -> None:
        super().__init__(model, method)
        self.columns = sizes, owners
        self.start()
        self._before = self.bind(self.model, "forward", "generate")

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.unbind()

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """What the model's `generate` does while its layers are pruned."""
        original = self._before["generate"]
        named = kwargs | dict(zip(inspect.signature(original).parameters, args, strict=False))
        self.check_generate(named)
        return original(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model's `forward` does while its layers are pruned."""
        original = self._before["forward"]
        kwargs |= zip(inspect.signature(original).parameters, args, strict=False)
        with self.told(*self.columns):
            return self.run(original, kwargs)


def _before_answer(labels: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The columns before the first that has a label."""
    return (labels != -100).cumsum(1) == 0


_INSTEAD = "use a method before the language model"

# What a `generate` cannot do that prunes inside the language model.
_FORBIDDEN: dict[str, Any] = {
    "use_cache": lambda value: value is False,
    "cache_implementation": lambda value: value not in (None, "dynamic"),
    "prefill_chunk_size": bool,
    "prompt_lookup_num_tokens": bool,
    "assistant_model": lambda value: value is not None,
}
