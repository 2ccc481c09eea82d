"""Answers from few visual tokens where the model is sure, and from more where it is not.

A guard is a cascade of reducers and a threshold, found by `prumerge calibrate` for a stated risk. A picture
is encoded once; each step shortens the same encoding less.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import LogitsProcessorList, StoppingCriteriaList

from prumerge.errors import PrumergeError
from prumerge.generate.answer import said
from prumerge.generate.stopwatch import Stopwatch
from prumerge.generate.watcher import Doubt, Watcher
from prumerge.layers.pruning import pruning
from prumerge.loading.fingerprint import fingerprint
from prumerge.loading.paths import existing, shown
from prumerge.loading.prompts import prepare
from prumerge.models import device_of
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline

UNLIKELY = 0.001
"""How unlikely a share of questions for the untouched model must be before data are called others."""
_LEAST = 20  # questions before anything is said of their share


@dataclass(frozen=True)
class Guard:
    """When few tokens are enough."""

    steps: tuple[str, ...]
    """Reducers from the fewest tokens up, such as ("medoids:keep=16", "medoids:keep=36"); behind them comes
    the untouched model."""
    threshold: float
    """An answer stands if its probability is at least this."""
    max_new_tokens: int = 24
    """Of an answer: a longer one is less probable."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Options` that are not as usual."""
    calibrated: Mapping[str, Any] = field(default_factory=dict)
    """What it was found on: agreement, confidence, pictures, questions, model, `untouched` (the share of the
    questions that went to the untouched model), and so on. Empty where a user chose the threshold."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise PrumergeError("a guard has a reducer at least, such as prumerge:keep=36")
        for step in self.steps:
            placed = Pipeline(step).placed
            if placed.tower is not None or placed.layers is not None:
                raise PrumergeError(
                    f"{step} works inside the model, and a guard encodes a picture once for all its steps; "
                    "choose methods before the language model"
                )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Guard:
        """From a file that `prumerge calibrate` wrote. Raises PrumergeError if it is none."""
        file = existing(path, "guard")
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            known = {one.name for one in fields(cls)}
            if not isinstance(held, dict) or not {"steps", "threshold"} <= held.keys() <= known:
                raise ValueError("it has other fields")
            return cls(
                **{**held, "steps": tuple(map(str, held["steps"])), "threshold": float(held["threshold"])}
            )
        except (OSError, ValueError, TypeError) as error:
            raise PrumergeError(
                f"{shown(file)} is no guard ({error}); name one that `prumerge calibrate` wrote"
            ) from None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Try:
    """What one step said."""

    method: str
    probability: float
    """Of its answer, as far as it was given: it stops where it is below the threshold already."""
    visual_tokens: int
    milliseconds: float


@dataclass(frozen=True)
class GuardedAnswer:
    """What the model said, and what it took."""

    answer: str
    tries: tuple[Try, ...]
    """Every step that was asked; the last one answered."""
    encode_ms: float
    """Vision tower, once."""

    @property
    def method(self) -> str:
        """Which step answered; "untouched" for all tokens."""
        return self.tries[-1].method

    @property
    def visual_tokens(self) -> int:
        """That the language model read, all steps together."""
        return sum(one.visual_tokens for one in self.tries)


class Guarded:
    """A model that answers under a guard, and counts how often all tokens were needed."""

    def __init__(self, model: Any, processor: Any, guard: Guard) -> None:
        self.model, self.processor, self.guard = model, processor, guard
        self.asked = self.untouched = 0

    @torch.inference_mode()
    def answer(self, media: Image.Image | Sequence[Image.Image], question: str) -> GuardedAnswer:
        """Answer greedily; `media` is a picture, or the frames of a clip. Raises PrumergeError as `reduce`
        does."""
        together = not isinstance(media, Image.Image)
        options = Options(clip=together).but(**self.guard.options)
        prompt = Prompt.read(self.model, prepare(self.processor, media, question).to(device_of(self.model)))
        watch = Stopwatch(device_of(self.model))
        pipelines = [Pipeline(step, options) for step in (*self.guard.steps, "none")]
        pictures = pipelines[-1].encode(prompt)
        encode_ms = watch.lap()
        tries: list[Try] = []
        for pipeline in pipelines:
            is_last = pipeline is pipelines[-1]
            decisions = pipeline.decide(pictures)
            shorter = pipeline.splice(prompt, decisions, pipeline.project(prompt, decisions))
            columns = pipeline.columns(prompt, shorter, decisions)
            watcher = Watcher()
            doubt = [] if is_last else [Doubt(watcher, self.guard.threshold)]
            with pruning(prompt.model, None, *columns):
                generated = self.model.generate(
                    **shorter,
                    max_new_tokens=self.guard.max_new_tokens,
                    do_sample=False,
                    logits_processor=LogitsProcessorList([watcher]),
                    stopping_criteria=StoppingCriteriaList(doubt),
                )
            new = said(prompt, shorter, generated)[0]
            [probability] = watcher.probabilities([len(new)])
            name = "untouched" if is_last else str(pipeline.method)
            tries.append(Try(name, probability, sum(len(one) for one in decisions), watch.lap()))
            if probability >= self.guard.threshold or is_last:
                break
        self.asked += 1
        self.untouched += tries[-1].method == "untouched"
        text = self.processor.decode(new, skip_special_tokens=True).strip()
        return GuardedAnswer(text, tuple(tries), encode_ms)

    def shift(self) -> str:
        """What to think of how often all tokens were needed, as `shift` says."""
        return shift(self.guard, self.asked, self.untouched)


def shift(guard: Guard, asked: int, untouched: int) -> str:
    """What to think where, of so many questions, the untouched model is asked far more or less often than at
    calibration, which says that questions or pictures are others; nothing where it is not."""
    share = guard.calibrated.get("untouched")
    if share is None or asked < _LEAST:
        return ""
    from scipy.stats import binomtest

    if binomtest(untouched, asked, share).pvalue >= UNLIKELY:
        return ""
    return (
        f"{untouched} of {asked} questions went to the untouched model, where calibration saw "
        f"{100 * share:.0f} %: these are other pictures or questions, and the stated agreement is not "
        "known to hold for them; calibrate on some of them"
    )


def guarded(model: Any, processor: Any, guard: Guard | str | os.PathLike[str]) -> Guarded:
    """A model that answers from few visual tokens where that is enough.

    >>> model = prumerge.guarded(*prumerge.load("tiny"), "guard.json")
    >>> model.answer(prumerge.open_image("photo.jpg"), "what is this?").answer

    `guard` is a `Guard`, or the file that `prumerge calibrate` wrote. Raises PrumergeError if it is none, or
    was found on a model of other weights.
    """
    found = guard if isinstance(guard, Guard) else Guard.read(guard)
    check_weights(found, model)
    return Guarded(model, processor, found)


def check_weights(guard: Guard, model: Any) -> None:
    """Raise PrumergeError for a guard that was found on other weights than the model's."""
    known = guard.calibrated.get("weights")
    if known is not None and known != fingerprint(model):
        raise PrumergeError(
            f"this guard was calibrated on other weights (those of {guard.calibrated.get('model')}); run "
            "prumerge calibrate on this model"
        )
