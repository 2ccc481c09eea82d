"""The pipeline's steps one by one, and small methods to take them with."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from builders import IMAGE

import prumerge
from prumerge.pipeline.decide import decide
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.reducer import LayerReducer


def encoded(model, inputs, spec="none", **options):
    """The visual tokens of each picture."""
    return Pipeline(spec, Options(**options)).encode(Prompt.read(model, inputs))


@dataclass(frozen=True, kw_only=True)
class Given(prumerge.Reducer):
    """What was decided by hand, picture by picture."""

    reductions: tuple

    def __call__(self, tokens):
        (reduction,) = self.reductions
        return reduction

    def decide(self, pictures):
        return list(self.reductions)


def decided(chosen, **options):
    """Decisions that were made by hand: pairs of tokens and reduction."""
    given = Given(reductions=tuple(reduction for _, reduction in chosen))
    return decide(given, [tokens for tokens, _ in chosen], Options(**options))


def spliced(model, inputs, chosen, **options):
    """The shorter prompt for such decisions."""
    prompt, pipeline = Prompt.read(model, inputs), Pipeline("none", Options(**options))
    decisions = decided(chosen, **options)
    return pipeline.splice(prompt, decisions, pipeline.project(prompt, decisions))


def readings(inside):
    """The attention that each cut between layers goes by, noted while the model runs."""
    seen, cut = [], inside._cut

    def noted(now, *given):
        seen.append(now.read)
        return cut(now, *given)

    inside._cut = noted
    return seen


def logits_of(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def token_by_token_and_at_once(model, inputs, steps=5):
    """The logits of a greedy answer as it was generated, and when prompt and answer are read in one go."""
    with torch.no_grad():
        output = model.generate(
            **inputs, max_new_tokens=steps, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        rows, length = inputs["input_ids"].shape
        labels = output.sequences.clone()
        labels[:, :length] = -100  # the answer asks for nothing
        mask = torch.cat([inputs["attention_mask"], torch.ones(rows, steps, dtype=torch.long)], dim=1)
        whole = model(
            input_ids=output.sequences,
            attention_mask=mask,
            pixel_values=inputs["pixel_values"],
            position_ids=(mask.cumsum(1) - 1).clamp_min(0),
            labels=labels,
        )
    return torch.stack(output.logits, dim=1), whole.logits


def words(inputs):
    """Where words are: neither padding nor placeholders."""
    return inputs["attention_mask"].bool() & (inputs["input_ids"] != IMAGE)


def close(one, other):
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


@dataclass(frozen=True, kw_only=True)
class Fourths(prumerge.Reducer):
    """Every fourth token, or the means of four in a row."""

    mean: bool = False

    def __call__(self, tokens):
        index = torch.arange(len(tokens))[1::4]
        if not self.mean:
            return prumerge.Reduction(index)
        weights = torch.eye(len(tokens)).view(-1, 4, len(tokens)).mean(1)
        return prumerge.Reduction(index, weights, torch.arange(len(tokens)) // 4)


@dataclass(frozen=True, kw_only=True)
class LaterFourths(LayerReducer):
    """The same before a layer of the language model."""

    reads: ClassVar[int] = 0
    layer: int = 0
    mean: bool = False

    def depths(self, layers):
        return (self.layer,)

    def __call__(self, tokens):
        return Fourths(mean=self.mean)(tokens)
