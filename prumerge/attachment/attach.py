"""Reduction for code that calls `forward` and `generate` itself: pipelines, trainers, evaluation
harnesses."""

from __future__ import annotations

import copy
import inspect
import warnings
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prumerge.attachment.memory import Memory
from prumerge.errors import PrumergeError
from prumerge.layers.binding import Bound
from prumerge.layers.pruning import LayerPruning, average_tokens
from prumerge.models import answers_apart, unwrap
from prumerge.pipeline.options import DEFAULT, Options
from prumerge.pipeline.prompt import Prompt, modality_of
from prumerge.pipeline.reduce import Pipeline
from prumerge.pipeline.splice import Columns, check_positions
from prumerge.reducer import Reducer


def attach(
    model: nn.Module, reducer: str | Reducer, options: Options | None = None, **changes: Any
) -> Attachment:
    """Make `model.forward` and `model.generate` reduce the visual tokens of raw pictures.

    Use it as `with attach(model, "prumerge"): ...`, or call `.detach()` on what it returns; then the model is
    as before. The fields of `Options` (`positions`, `separators`, `clip`, `relevance`, `size_bias`) are given
    by name, or as `options`. Only this instance is touched, and PEFT models may be wrapped before or after;
    what other code puts in the place of `forward` afterwards (TRL's SFTTrainer does, so attach after making
    one) stays its own. One attached model may be used by several threads.

    With `size_bias` the language model attends to a token in proportion to its size, the patches it stands
    for (`VisualTokens.assigned`): the logarithm is added to the logits of its key in every layer, as if it
    stood there that many times (proportional attention, section 3 of ToMe, https://arxiv.org/abs/2210.09461).
    Where all sizes are 1 nothing changes. It needs sdpa or eager attention.

    `generate` returns the caller's prompt followed by the answer, and a cache that it filled may be used for
    a second turn that continues the same prompt. `forward` returns logits for the shorter prompt; the loss is
    right, since labels are cut alike (`attached.labels`), and later steps on its cache may bring the caller's
    full-length mask.

    It cannot take `inputs_embeds` with pictures, add a picture to a cache that is not empty, or propose
    tokens by prompt look-up; these raise PrumergeError. Pickling or saving the model does not keep it
    attached.
    """
    inner = unwrap(model)
    there = vars(inner).get(Attachment.holder)
    if there is not None and there.answers:
        raise PrumergeError(
            f"a method is attached to this model already ({there.reducer}); detach it first, or exchange it: "
            "attached.reducer = ..."
        )
    return Attachment(inner, Pipeline(reducer, (options or DEFAULT).but(**changes)))


class Attachment(Bound):
    """An attached method; see `attach`."""

    holder = "_prumerge"

    def __init__(self, model: PreTrainedModel, pipeline: Pipeline) -> None:
        super().__init__()
        self.model = model
        self.tokens: list[tuple[int, int]] = []
        """Visual tokens before and after, for each picture of the latest call."""
        self.labels: Int[Tensor, "B L"] | None = None
        """The labels of the latest `forward`, cut as its prompt was; None where it had none."""
        self.inside: LayerPruning | None = None
        """What happens in the layers of the language model."""
        self._called = self._told = False
        self._use(pipeline)
        self._before = self.bind(model, "forward", "generate")

    def _use(self, pipeline: Pipeline) -> None:
        """Work by another pipeline from now on; what the model does not allow is refused before that."""
        check_positions(pipeline.options, self.model.config)
        layers, biased = pipeline.placed.layers, pipeline.options.size_bias
        inside = LayerPruning(self.model, layers) if layers or biased else None
        if self.inside is not None:
            self.inside.unbind()
        if inside is not None:
            inside.start()
        self.inside, self.pipeline = inside, pipeline

    @property
    def reducer(self) -> Reducer:
        """The attached method; another one, or its spec, may be put in its place between calls."""
        return self.pipeline.method

    @reducer.setter
    def reducer(self, reducer: str | Reducer) -> None:
        self._use(Pipeline(reducer, self.pipeline.options))

    @property
    def options(self) -> Options:
        """How prompts are shortened; others may be put in their place between calls."""
        return self.pipeline.options

    @options.setter
    def options(self, options: Options) -> None:
        self._use(Pipeline(self.reducer, options))

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.detach(quiet=kind is not None)

    def detach(self, *, quiet: bool = False) -> None:
        """Give the model its own methods back; doing it twice is harmless.

        Warns, unless `quiet`, where the attached methods were never called: another library must have put
        its own in their place.
        """
        if self.answers and not self._called and not quiet:
            warnings.warn(
                f"{self.reducer} was attached, but neither forward nor generate was called: nothing was "
                "reduced. If the model did run, other code had put its own forward in place (TRL's "
                "SFTTrainer does when it is made): attach after that",
                stacklevel=3,
            )
        self.unbind()
        if self.inside is not None:
            self.inside.unbind()

    @property
    def average_tokens(self) -> list[float]:
        """Visual tokens that a layer of the language model saw on average, for each picture of the latest
        call: what it costs."""
        return average_tokens(self.inside, [after for _, after in self.tokens])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model's `forward` does while a method is attached."""
        self._called = True
        original = self._before["forward"]
        kwargs |= zip(inspect.signature(original).parameters, args, strict=False)
        cache: Any = kwargs.get("past_key_values")
        self.labels = kwargs.get("labels")
        if modality_of(kwargs) is None:
            memory: Memory | None = getattr(cache, "_prumerge", None)
            inputs = memory.step(kwargs, cache.get_seq_length()) if memory else kwargs
            return original(**inputs) if self.inside is None else self.inside.run(original, inputs)
        self._check_forward(kwargs)
        reduced, columns = self._reduced(Prompt.read(self.model, kwargs, infer_padding=False))
        self.labels = reduced.get("labels")
        if self.inside is None:
            output = original(**reduced)
        else:
            with self.inside.told(*columns):
                output = self.inside.run(original, reduced)
        cache = getattr(output, "past_key_values", cache)
        if cache is not None:
            cache._prumerge = Memory.of(kwargs["input_ids"], reduced, self.pipeline.options)
        return output

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """What the model's `generate` does while a method is attached."""
        self._called = True
        original = self._before["generate"]
        kwargs |= zip(inspect.signature(original).parameters, args, strict=False)
        inputs = kwargs.pop("inputs", None)
        ids = kwargs.pop("input_ids", inputs)
        cache: Any = kwargs.get("past_key_values")
        memory: Memory | None = getattr(cache, "_prumerge", None)
        filled = cache is not None and cache.get_seq_length() > 0
        if self.inside is not None:
            self.inside.check_generate(kwargs)
        prompt = None if filled else Prompt.read(self.model, {**kwargs, "input_ids": ids})
        if prompt is not None and prompt.modality is None:
            prompt.nothing_to_show()
        if (prompt.modality if prompt else memory or modality_of(kwargs)) is None:
            return original(**kwargs) if ids is None else original(input_ids=ids, **kwargs)
        if kwargs.get("prompt_lookup_num_tokens"):
            raise PrumergeError(
                "prompt look-up proposes image placeholders as text; leave out prompt_lookup_num_tokens"
            )
        columns = Columns()
        if prompt:
            reduced, columns = self._reduced(prompt)
            memory = Memory.of(ids, reduced, self.pipeline.options)
        elif memory is None:
            raise PrumergeError("this cache was filled without reduction; start a new one to attach a method")
        else:
            reduced = memory.continued(ids, kwargs, self.model.config, cache.get_seq_length())
        short = reduced.pop("input_ids")
        # What an encoder-decoder language model says does not follow the prompt, nor do lengths count it.
        apart = answers_apart(self.model.config)
        removed = 0 if apart else ids.shape[1] - short.shape[1]
        handed = _lengths(reduced, self.model.generation_config, removed)
        if self.inside is None:
            answer = original(input_ids=short, **handed)
        else:
            with self.inside.told(*columns):
                answer = original(input_ids=short, **handed)
        return answer if apart else memory.restored(ids, short.shape[1], answer, cache)

    def _reduced(self, prompt: Prompt) -> tuple[dict[str, Any], Columns]:
        """The shorter prompt, and what layers are told of its columns."""
        shorter, decisions = self.pipeline.reduce(prompt)
        self.tokens = [(one.tokens.patches, len(one)) for one in decisions]
        told = Columns() if self.inside is None else self.pipeline.columns(prompt, shorter, decisions)
        return shorter, told

    def _check_forward(self, inputs: dict[str, Any]) -> None:
        if isinstance(inputs.get("logits_to_keep"), Tensor):
            raise PrumergeError(
                "logits_to_keep names places of the whole prompt, of which a shorter one is read; give it "
                "as a number of places, counted from the end"
            )
        if (
            self.model.training
            and torch.is_grad_enabled()
            and inputs.get("labels") is None
            and not self._told
        ):
            self._told = True
            warnings.warn(
                "forward was called in training without labels, and its logits are those of the shorter "
                "prompt: a loss made of them outside (label_smoothing_factor or compute_loss_func of a "
                "Trainer) does not fit the caller's labels. Leave the loss to the model, or pass labels and "
                "take attached.labels",
                stacklevel=3,
            )


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
