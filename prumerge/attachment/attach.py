"""Reduction for code that calls `forward` and `generate` itself: pipelines, trainers, evaluation
harnesses."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prumerge.compose import Placed
from prumerge.errors import PrumergeError
from prumerge.layers.binding import Bound
from prumerge.layers.pruning import Inside, average_tokens
from prumerge.models import family_of, unwrap
from prumerge.pipeline.splice import (
    Policy,
    Positions,
    check_positions,
    column_sizes,
    decide,
    has_pictures,
    splice,
)
from prumerge.reducer import Reducer
from prumerge.spec import make


def attach(
    model: nn.Module,
    reducer: str | Reducer,
    *,
    positions: Positions = "compact",
    clip: bool = False,
    separators: Policy = "keep",
    size_bias: bool = False,
) -> Attachment:
    """Make `model.forward` and `model.generate` reduce the visual tokens of raw pictures.

    Use it as `with attach(model, "prumerge"): ...`, or call `.detach()` on what it returns; then the model is
    as before. `positions`, `clip` and `separators` are those of `reduce`. Only this instance is touched, and
    PEFT models may be wrapped before or after.

    With `size_bias` the language model attends to a token in proportion to its size, the patches it stands
    for (`Reduction.sizes`): the logarithm is added to the logits of its key in every layer, as if it stood
    there that many times (proportional attention, section 3 of ToMe, https://arxiv.org/abs/2210.09461). Where
    all sizes are 1 nothing changes. It needs sdpa or eager attention.

    `generate` returns the caller's prompt followed by the answer, and a cache that it filled may be used for
    a second turn that continues the same prompt. `forward` returns logits for the shorter prompt; the loss is
    right, since labels are cut alike, and later steps on its cache may bring the caller's full-length mask.

    It cannot take `inputs_embeds` with pictures, add a picture to a cache that is not empty, or propose
    tokens by prompt look-up; these raise ValueError. Pickling or saving the model does not keep it attached.
    """
    inner = unwrap(model)
    if vars(inner).get("_prumerge"):
        raise PrumergeError(
            f"a method is attached to this model already ({inner._prumerge.reducer}); detach it first"
        )
    check_positions(positions, inner)
    return Attachment(inner, make(reducer), positions, clip=clip, separators=separators, size_bias=size_bias)


class Attachment(Bound):
    """An attached method; see `attach`."""

    holder = "_prumerge"

    def __init__(
        self,
        model: PreTrainedModel,
        reducer: Reducer,
        positions: Positions = "compact",
        *,
        clip: bool = False,
        separators: Policy = "keep",
        size_bias: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.reducer = reducer
        self.positions = positions
        self.clip = clip
        self.separators = separators
        self.size_bias = size_bias
        self.tokens: list[tuple[int, int]] = []
        """Visual tokens before and after, for each picture of the latest call."""
        inside = Placed.of(reducer).layers
        # First of all, so that what is shortened below comes to a model that prunes between its layers.
        self.inside = Inside(model, inside) if inside or size_bias else None
        """What happens in the layers of the language model."""
        self._before = self.bind(model, "forward", "generate")

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def detach(self) -> None:
        """Give the model its own methods back.

        Doing it twice is harmless.
        """
        self.unbind()
        if self.inside is not None:
            self.inside.remove()

    @property
    def average_tokens(self) -> list[float]:
        """Visual tokens that a layer of the language model saw on average, for each picture of the latest
        call: what it costs."""
        return average_tokens(self.inside, [after for _, after in self.tokens])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        original = self._before["forward"]
        kwargs |= zip(inspect.signature(original).parameters, args, strict=False)
        cache: Any = kwargs.get("past_key_values")
        if not has_pictures(kwargs):
            memory: _Prompt | None = getattr(cache, "_prumerge", None)
            return original(**(memory.step(kwargs, cache.get_seq_length()) if memory else kwargs))
        reduced = self._reduced(kwargs)
        output = original(**reduced)
        cache = getattr(output, "past_key_values", cache)
        if cache is not None:
            cache._prumerge = _Prompt.of(kwargs["input_ids"], reduced, self.positions)
        return output

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        original = self._before["generate"]
        kwargs |= zip(inspect.signature(original).parameters, args, strict=False)
        inputs = kwargs.pop("inputs", None)
        ids = kwargs.pop("input_ids", inputs)
        cache = kwargs.get("past_key_values")
        memory: _Prompt | None = getattr(cache, "_prumerge", None)
        filled = cache is not None and cache.get_seq_length() > 0
        if not (has_pictures(kwargs) or (filled and memory)):
            return original(**kwargs) if ids is None else original(input_ids=ids, **kwargs)
        if kwargs.get("prompt_lookup_num_tokens"):
            raise PrumergeError(
                "prompt look-up proposes image placeholders as text; leave out prompt_lookup_num_tokens"
            )
        if not filled:
            reduced = self._reduced({**kwargs, "input_ids": ids})
            memory = _Prompt.of(ids, reduced, self.positions)
        elif memory is None:
            raise PrumergeError("this cache was filled without reduction; start a new one to attach a method")
        else:
            reduced = memory.continued(ids, kwargs, self.model.config)
        short = reduced.pop("input_ids")
        removed = ids.shape[1] - short.shape[1]
        answer = original(input_ids=short, **_lengths(reduced, self.model.generation_config, removed))
        return memory.restored(ids, short.shape[1], answer, cache)

    def _reduced(self, inputs: dict[str, Any]) -> dict[str, Any]:
        chosen = decide(self.model, inputs, self.reducer, clip=self.clip)
        self.tokens = [(tokens.patches, len(reduction)) for tokens, reduction in chosen]
        shorter = splice(self.model, inputs, chosen, self.positions, separators=self.separators)
        if self.size_bias and self.inside is not None:
            self.inside.sizes = column_sizes(
                self.model, shorter, chosen, self.positions, separators=self.separators
            )
        return shorter


@dataclass(frozen=True)
class _Prompt:
    """What a cache was filled with: the caller's prompt, and the shorter one in its place."""

    full: Int[Tensor, "B L"]
    short: Int[Tensor, "B S"]
    mask: Int[Tensor, "B S"]
    positions: Int[Tensor, "*R B S"] | None = None
    """Where they have gaps, or several rows."""

    @classmethod
    def of(cls, full: Tensor, reduced: dict[str, Any], positions: Positions) -> _Prompt:
        own = reduced.get("position_ids")
        needed = own is not None and (positions != "compact" or own.ndim == 3)
        return cls(full, reduced["input_ids"], reduced["attention_mask"], own if needed else None)

    def after(self, later: Int[Tensor, "B T"]) -> Int[Tensor, "*R B T"]:
        """The positions of what follows the prompt, by its mask."""
        assert self.positions is not None
        return self.positions.amax(-1, keepdim=True) + later.cumsum(1)

    def continued(self, ids: Tensor, inputs: dict[str, Any], config: Any) -> dict[str, Any]:
        """A later turn: the caller's longer prompt with its beginning shortened as before."""
        length = self.full.shape[1]
        if ids.shape[0] != len(self.full) or not torch.equal(ids[:, :length], self.full):
            raise PrumergeError(
                "the prompt does not continue the one in the cache; pass the earlier prompt and answer "
                "(what generate returned) followed by the new text, or start a new cache"
            )
        new = ids[:, length:]
        placeholders = [getattr(config, f"{modality}_token_id", None) for modality in ("image", "video")]
        if any((new == token).any() for token in placeholders if token is not None):
            raise PrumergeError(
                "a new picture cannot join a cache that is in use; start a new cache with all pictures"
            )
        mask = inputs.get("attention_mask")
        new_mask = torch.ones_like(new) if mask is None else mask[:, length:]
        seen = family_of(config.model_type).inputs
        later = {name: value for name, value in inputs.items() if name not in seen}
        later["input_ids"] = torch.cat([self.short, new], dim=1)
        later["attention_mask"] = torch.cat([self.mask, new_mask], dim=1)
        if self.positions is not None:
            later["position_ids"] = torch.cat([self.positions, self.after(new_mask)], dim=-1)
        return later

    def step(self, inputs: dict[str, Any], cached: int) -> dict[str, Any]:
        """A later `forward` on the cache: a mask of the caller's full length becomes one of what was read."""
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is not None and mask is None and self.positions is not None and self.positions.ndim == 3:
            later = ids.new_ones(len(ids), cached + ids.shape[1] - self.short.shape[1])
            inputs.setdefault("position_ids", self.after(later)[..., -ids.shape[1] :])
        removed = self.full.shape[1] - self.short.shape[1]
        if ids is None or mask is None or mask.ndim != 2 or mask.shape[1] != cached + ids.shape[1] + removed:
            return inputs
        before, after = mask.split([self.full.shape[1], mask.shape[1] - self.full.shape[1]], dim=1)
        inputs["attention_mask"] = torch.cat([self.mask, after], dim=1)
        positions = inputs.get("position_ids")
        if self.positions is not None and self.positions.ndim == 2:
            inputs["position_ids"] = self.after(after)[:, -ids.shape[1] :] if positions is None else positions
        elif positions is not None and positions.ndim == 2:
            inputs["position_ids"] = positions - (before.sum(1) - self.mask.sum(1))[:, None]
        return inputs

    def restored(self, ids: Tensor, length: int, answer: Any, cache: Any) -> Any:
        """What `generate` returned with the caller's prompt in place of the short one; the cache remembers
        both."""
        whole = isinstance(answer, Tensor)
        sequences = answer if whole else answer.sequences
        prompt = ids.repeat_interleave(len(sequences) // len(ids), dim=0)
        sequences = torch.cat([prompt, sequences[:, length:]], dim=1)
        cache = cache if whole else answer.past_key_values
        if cache is not None and len(prompt) == len(self.full):
            cache._prumerge = self
        if whole:
            return sequences
        answer.sequences = sequences
        return answer


def _lengths(inputs: dict[str, Any], defaults: Any, removed: int) -> dict[str, Any]:
    """`max_length` and `min_length` count the prompt: lower them by what was removed from it."""
    for name in ("max_length", "min_length"):
        config = inputs.get("generation_config")
        asked = [inputs.get(name), config and getattr(config, name), getattr(defaults, name)]
        limit = next((value for value in asked if value is not None), None)
        if not limit:
            continue
        if config is None or asked[0] is not None:
            inputs[name] = max(limit - removed, 0)
        else:  # where it was said: Transformers wants it there or among the arguments, not both
            inputs["generation_config"] = config = copy.copy(config)
            setattr(config, name, max(limit - removed, 0))
    return inputs
