"""The untouched model's answer, decoded faster: drafts over few visual tokens, verified over all of them.

The whole prompt is prefilled once. A draft cache is a selection of the model's own keys and values: all
words, and the visual columns that a method keeps, where they stood; a draft attends to each in proportion to
the patches it stands for. The model drafts a few tokens over that, then reads them once over the whole cache,
which says what it would have said itself; drafts stand up to the first that differs. Prefill costs what it
did, so a short answer gains nothing, and neither does a short prompt, whose keys and values are small beside
the weights that every pass reads.

Speculative decoding is Leviathan et al.'s (https://arxiv.org/abs/2211.17192), drafting over a part of the
model's own cache as in Sparse-to-Dense (https://arxiv.org/abs/2505.19155).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from prumerge.errors import PrumergeError
from prumerge.models import answers_apart
from prumerge.pipeline.decide import Decision
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.reducer import Reducer


@dataclass(frozen=True)
class Lossless:
    """An answer, and what it took."""

    tokens: Int[Tensor, "T"]
    """That the untouched model says, the one that ends it included."""
    passes: int
    """Of the model over the whole cache, behind the prompt's; decoding one by one takes T - 1."""
    drafted: int
    accepted: int
    ratio: float
    """Bytes that are read for each token, of weights and of keys and values, against decoding one by one:
    where memory bounds decoding, above 1 is slower."""


@torch.inference_mode()
def lossless(
    model: nn.Module,
    inputs: Mapping[str, Any],
    reducer: str | Reducer = "prumerge",
    *,
    max_new_tokens: int = 64,
    draft: int = 4,
    sizes: bool = True,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    options: Options | None = None,
) -> Lossless:
    """What `model.generate(**inputs)` says of one prompt, greedily, or drawn at a `temperature` from the same
    distribution; `draft` tokens are drafted at a time, with `sizes` on attention (of sdpa and eager).

    Raises PrumergeError for several prompts at once, for methods inside the model, and for models whose
    positions or caches are of other kinds.
    """
    prompt = Prompt.read(model, inputs)
    pipeline = _checked(prompt, reducer, options or Options())
    pictures = pipeline.encode(prompt)
    decisions = pipeline.decide(pictures)
    whole = Pipeline("none", pipeline.options)
    every = whole.decide(pictures)
    shorter = whole.splice(prompt, every, whole.project(prompt, every))
    length = shorter["input_ids"].shape[1]
    device = shorter["input_ids"].device
    kept, patches = (each.to(device) for each in _columns(prompt, decisions))
    first = model(**shorter, use_cache=True, logits_to_keep=1)
    cache = _plain(first.past_key_values)
    talk = _Talk(model, length, temperature, generator)
    said = [talk.draw(talk.chances(first.logits[0, -1]))]
    passes = drafted = accepted = 0
    ends = _ends(model)
    small = _part(cache, kept)
    told = sizes and prompt.model.config.get_text_config()._attn_implementation in ("sdpa", "eager")
    bias = patches.log().to(first.logits) if told else None
    while said[-1] not in ends and len(said) < max_new_tokens:
        have = len(said)
        guesses, chances = _drafted(talk, small, bias, said, min(draft, max_new_tokens - have), ends)
        theirs = talk.read([said[-1], *guesses], cache)
        good, after = talk.judge(guesses, chances, theirs)
        said += [*guesses[:good], after]
        passes, drafted, accepted = passes + 1, drafted + len(guesses), accepted + good
        said = said[: next((place + 1 for place, one in enumerate(said) if one in ends), None)]
        said = said[:max_new_tokens]
        surplus = cache.get_seq_length() - (length + len(said) - 1)
        if surplus > 0:
            cache.crop(-surplus)
        _follow(small, cache, len(kept), length)
    tokens = torch.tensor(said, device=device)
    ratio = _ratio(model, cache, small, len(said), passes, drafted)
    return Lossless(tokens, passes, drafted, accepted, ratio)


def _checked(prompt: Prompt, reducer: str | Reducer, options: Options) -> Pipeline:
    """The steps of a method that can draft. Raises PrumergeError, saying why not, for others."""
    pipeline = Pipeline(reducer, options)
    kind = prompt.model.config.model_type
    if prompt.inputs["input_ids"].shape[0] != 1:
        raise PrumergeError("drafts are made for one prompt at a time; call lossless for each row")
    if prompt.mask is not None and not bool(prompt.mask.all()):
        raise PrumergeError("drafts are made for a prompt without padding; leave the padding out")
    if pipeline.placed.tower is not None or pipeline.placed.layers is not None:
        raise PrumergeError(
            f"{pipeline.method} works inside the model; draft with a method before the language model"
        )
    if prompt.family.positions is not None or prompt.family.hands_embeddings:
        raise PrumergeError(f"models of type {kind!r} have positions that a draft cannot go on from yet")
    if answers_apart(prompt.model.config):
        raise PrumergeError(f"models of type {kind!r} do not keep the prompt in the cache they decode from")
    settings = prompt.model.generation_config
    if (settings.repetition_penalty or 1) != 1 or settings.no_repeat_ngram_size:
        raise PrumergeError("the generation config penalises repetition, which drafts do not follow")
    return pipeline


def _columns(prompt: Prompt, decisions: Sequence[Decision]) -> tuple[Int[Tensor, "K"], Float[Tensor, "K"]]:
    """The columns of the prompt that a draft reads, all but the placeholders of what is not kept, and how
    many patches each stands for; words count as one."""
    offsets = accumulate((one.tokens.placeholders for one in decisions), initial=0)
    standing = torch.cat([first + one.standing for first, one in zip(offsets, decisions, strict=False)])
    image = prompt.image[0].cpu()
    places = image.nonzero()[:, 0][standing.cpu()]
    read, patches = ~image, torch.ones(len(image))
    read[places], patches[places] = True, torch.cat([one.sizes() for one in decisions])
    return read.nonzero()[:, 0], patches[read]


def _plain(cache: Any) -> DynamicCache:
    """A cache whose columns can be chosen. Raises PrumergeError for another."""
    layers = getattr(cache, "layers", [])
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        raise PrumergeError(
            "this model's cache slides or is of another kind, so that a draft cannot read a part of it"
        )
    found: DynamicCache = cache
    return found


def _part(cache: DynamicCache, columns: Int[Tensor, "K"]) -> DynamicCache:
    """A copy of some columns."""
    small = DynamicCache()
    for number, layer in enumerate(cache.layers):
        keys, values = (each.index_select(2, columns.to(each.device)) for each in (layer.keys, layer.values))
        small.update(keys, values, number)
    return small


def _follow(small: DynamicCache, cache: DynamicCache, kept: int, length: int) -> None:
    """Put the whole cache's own keys and values of the answer into the draft's."""
    for layer, whole in zip(small.layers, cache.layers, strict=True):
        layer.keys = torch.cat([layer.keys[:, :, :kept], whole.keys[:, :, length:]], 2)
        layer.values = torch.cat([layer.values[:, :, :kept], whole.values[:, :, length:]], 2)


def _ends(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return {one for one in (ends if isinstance(ends, list) else [ends]) if one is not None}


@dataclass(frozen=True)
class _Talk:
    """A model that goes on behind a prompt of `length` columns."""

    model: Any
    length: int
    temperature: float
    generator: torch.Generator | None

    def read(self, ids: Sequence[int], cache: DynamicCache, **places: Tensor) -> Float[Tensor, "T V"]:
        """The chances of what comes after each of these tokens of an answer. `places` (positions, mask) are
        given where the cache holds a part of what came before: where it holds all, the model finds them
        itself, as it does in `generate`."""
        given = torch.tensor([list(ids)], device=self.model.device)
        logits = self.model(input_ids=given, past_key_values=cache, use_cache=True, **places).logits[0]
        return self.chances(logits)

    def chances(self, logits: Float[Tensor, "*T V"]) -> Float[Tensor, "*T V"]:
        """One-hot where it is greedy."""
        if self.temperature:
            return (logits.float() / self.temperature).softmax(-1)
        return torch.zeros_like(logits, dtype=torch.float).scatter_(-1, logits.argmax(-1, keepdim=True), 1)

    def draw(self, chances: Float[Tensor, "V"]) -> int:
        if self.temperature:
            return int(torch.multinomial(chances, 1, generator=self.generator))
        return int(chances.argmax())

    def judge(
        self, guesses: Sequence[int], drafted: Sequence[Tensor], theirs: Float[Tensor, "T V"]
    ) -> tuple[int, int]:
        """How many guesses stand, and the token after them: each stands with the chance that the model gives
        it over the chance that the draft gave it, and where one does not, what the draft gave too little is
        drawn from."""
        for place, (guess, own) in enumerate(zip(guesses, drafted, strict=True)):
            stands = float(theirs[place, guess] / own[guess])
            if stands < 1 and self._uniform() >= stands:
                left = (theirs[place] - own).clamp_min(0)
                return place, self.draw(left / left.sum())
        return len(guesses), self.draw(theirs[len(guesses)])

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self.generator)) if self.temperature else 0.0


def _drafted(
    talk: _Talk,
    small: DynamicCache,
    bias: Float[Tensor, "K"] | None,
    said: Sequence[int],
    count: int,
    ends: set[int],
) -> tuple[list[int], list[Tensor]]:
    """Up to `count` tokens that the draft would say, and the chances it gave; `bias` is on the logits of the
    prompt's K keys."""
    guesses: list[int] = []
    chances: list[Tensor] = []
    while len(guesses) < count and (not guesses or guesses[-1] not in ends):
        last = guesses[-1] if guesses else said[-1]
        at = talk.length + len(said) - 1 + len(guesses)
        places = {"position_ids": torch.tensor([[at]], device=talk.model.device)}
        if bias is not None:
            places["attention_mask"] = pad(bias, (0, small.get_seq_length() + 1 - len(bias)))[
                None, None, None
            ]
        [own] = talk.read([last], small, **places)
        chances.append(own)
        guesses.append(talk.draw(own))
    return guesses, chances


def _ratio(
    model: Any, cache: DynamicCache, small: DynamicCache, said: int, passes: int, drafted: int
) -> float:
    """Bytes read against decoding one by one."""

    def held(one: DynamicCache) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in one.layers)

    weights = sum(weight.nbytes for weight in model.get_decoder().parameters())
    alone = (said - 1) * (weights + held(cache))
    ours = passes * (weights + held(cache)) + drafted * (weights + held(small))
    return ours / alone if alone else 1.0
