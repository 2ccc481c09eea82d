"""Encode -> select -> merge -> project -> splice: a processor's output in, a shorter prompt out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from prumerge.errors import PrumergeError
from prumerge.pipeline.decide import Decision, Left, decide, with_owners
from prumerge.pipeline.encode import shown
from prumerge.pipeline.options import DEFAULT, Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.splice import Columns, column_owners, column_sizes, splice
from prumerge.reducer import Reducer
from prumerge.spec import make
from prumerge.tokens import Reduction, VisualTokens


class Pipeline:
    """The steps from a prompt to a shorter one, for one method and one way to shorten.

    `reduce`, `select`, `attach`, answering and evaluation are these steps in a row; whoever wants to time
    them, or to do one of them elsewhere, takes them apart here.
    """

    def __init__(self, reducer: str | Reducer, options: Options | None = None) -> None:
        self.method, self.options = make(reducer), options or DEFAULT
        self.placed = self.method.placed

    def encode(self, prompt: Prompt) -> list[VisualTokens]:
        """The visual tokens of each picture, merged where the method works inside the vision tower.

        Raises PrumergeError where the tower lets no method merge.
        """
        if prompt.modality is None:
            return []
        family, base, merging = prompt.family, prompt.base, self.placed.tower
        if merging is None:
            found = family.encode(base, prompt.inputs)
        elif family.merges:
            found = family.encode(base, prompt.inputs, merging)
        else:
            raise PrumergeError(
                f"{merging} merges inside the vision tower, which is not supported for models of type "
                f"{prompt.model.config.model_type!r} yet; use a method before the language model"
            )
        return shown(prompt, found, self.options)

    def decide(self, pictures: Sequence[VisualTokens]) -> list[Decision]:
        """What the method keeps of each picture between encoder and language model."""
        before, prefix = self.placed.before, self.placed.prefix
        decisions = decide(before, pictures, self.options)
        return decisions if prefix is None else with_owners(prefix, decisions, whole=before is None)

    def project(self, prompt: Prompt, decisions: Sequence[Decision]) -> list[Float[Tensor, "_ H"]]:
        """What the language model reads of each picture: its tokens and separators behind the projector."""
        return prompt.family.project(prompt.base, [one.features() for one in decisions])

    def splice(
        self, prompt: Prompt, decisions: Sequence[Decision | Left], embeddings: Sequence[Tensor]
    ) -> dict[str, Any]:
        """The shorter prompt around them."""
        return splice(prompt, decisions, embeddings, self.options)

    def columns(
        self, prompt: Prompt, shorter: Mapping[str, Any], decisions: Sequence[Decision | Left]
    ) -> Columns:
        """What the language model's layers are told of the shorter prompt, where they look at it."""
        if not decisions:
            return Columns()
        told = prompt.model, shorter, decisions
        return Columns(
            sizes=column_sizes(*told) if self.options.size_bias else None,
            owners=column_owners(*told) if self.placed.prefix is not None else None,
        )

    def reduce(self, prompt: Prompt) -> tuple[dict[str, Any], list[Decision]]:
        """All steps in a row: the shorter prompt, and what was decided."""
        pictures = self.encode(prompt)
        if not pictures:
            return dict(prompt.inputs), []
        decisions = self.decide(pictures)
        return self.splice(prompt, decisions, self.project(prompt, decisions)), decisions


def reduce(
    model: nn.Module,
    inputs: Mapping[str, Any],
    reducer: str | Reducer,
    options: Options | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Shorten a prompt: encode its pictures, reduce their visual tokens, drop the placeholders that are left
    over.

    `inputs` is what the processor returned (`input_ids [B, L]`, `attention_mask`, `pixel_values`, perhaps
    `labels`). The result goes to `model(**...)` or `model.generate(**...)` in its place: `input_ids [B, L']`,
    every other tensor of shape [B, L] cut alike, and the features as `mm_encoder_outputs`. Rows are padded on
    the side where the batch was padded before (left if it was not). Inputs without pictures come back as they
    are. Nothing on the model is changed.

    The fields of `Options` (`positions`, `separators`, `clip`, `relevance`) are given by name, or as
    `options`. A bias on attention for the size of merged tokens (`size_bias`) is no part of a prompt:
    `attach` has it, here it raises PrumergeError.

    Gradients follow torch's own switches, so for inference call it under `torch.no_grad()`. Beam search in
    Transformers expands `mm_encoder_outputs` in place: reduce anew for each such `generate`.

    Raises PrumergeError (a ValueError) for unknown methods and options, a family that is not supported, a
    prompt whose placeholders do not match its pictures, and features that are not finite.
    """
    pipeline = _by_a_prompt(reducer, (options or DEFAULT).but(**changes))
    prompt = Prompt.read(model, inputs)
    if prompt.modality is None:
        prompt.nothing_to_show()
    return pipeline.reduce(prompt)[0]


def select(
    model: nn.Module,
    inputs: Mapping[str, Any],
    reducer: str | Reducer,
    options: Options | None = None,
    **changes: Any,
) -> list[tuple[VisualTokens, Reduction]]:
    """The visual tokens of each picture in `inputs` and what the method decides for them; takes and raises
    what `reduce` does.

    Where the vision tower has merged patches (ToMe), `tokens.whole(reduction)` is the decision for the
    patches of `tokens.picture_grid`.
    """
    pipeline = _by_a_prompt(reducer, (options or DEFAULT).but(**changes))
    prompt = Prompt.read(model, inputs)
    return [(one.tokens, one.reduction) for one in pipeline.decide(pipeline.encode(prompt))]


def _by_a_prompt(reducer: str | Reducer, options: Options) -> Pipeline:
    """The pipeline of a method that a shorter prompt is enough for; PrumergeError for others."""
    pipeline = Pipeline(reducer, options)
    if pipeline.placed.layers is not None:
        raise PrumergeError(
            f"{pipeline.method} works inside the language model, not by a shorter prompt: use it by "
            f"`with prumerge.attach(model, {str(pipeline.method)!r})` or `prumerge answer`"
        )
    if options.size_bias:
        raise PrumergeError(
            "size_bias works inside the language model, not by a shorter prompt: use it by "
            f"`with prumerge.attach(model, {str(pipeline.method)!r}, size_bias=True)` "
            "or `prumerge answer --size-bias`"
        )
    return pipeline
