"""What is to be asked: methods, budgets, question sets, and what belongs to which of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from prumerge.errors import PrumergeError, short, unknown
from prumerge.evaluate.asked import Showing, described, showings, sources
from prumerge.evaluate.tasks import SCENES, names
from prumerge.evaluate.tasks._task import Source
from prumerge.loading.fingerprint import fingerprint
from prumerge.models import device_of
from prumerge.pipeline.options import DEFAULT, Options
from prumerge.reducer import Reducer
from prumerge.spec import make, split_specs, with_keep
from prumerge.tokens import VisualTokens


@dataclass(frozen=True)
class Job:
    """A method at a budget."""

    label: str
    spec: str


@dataclass(frozen=True)
class Plan:
    """What is to be asked."""

    methods: tuple[str, ...]
    budgets: tuple[int | float, ...]
    """Visual tokens of a picture, or of each frame of a clip: counts, and shares of them below 1."""
    adaptive: bool
    """Whether adaptive methods run with their own choice as well, and the others at the mean of each."""
    tasks: Mapping[str, Source]
    """By name, in the order in which they are asked."""

    @classmethod
    def read(
        cls,
        methods: str,
        budgets: str,
        tasks: str,
        questions: int | None = None,
        *,
        unseen: bool = False,
        data: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Plan:
        """From what a user writes, names separated by commas; `all` tasks are those about drawn scenes.

        `questions` at most are asked in each task; without a number all there are, or 504 drawn ones.
        `unseen` draws a font and coloured shapes that training never showed. `data` is the folder that holds
        a folder for each task by its name, or the only task's own; `options` go to the tasks that take them.

        Raises PrumergeError naming what there is.
        """
        asked = list(dict.fromkeys(_parts(tasks)))
        if wrong := [name for name in asked if name not in ("all", *names())]:
            raise PrumergeError(unknown("task", wrong[0], ("all", *names())))
        if "all" in asked:
            asked = list(dict.fromkeys([*SCENES, *(name for name in asked if name != "all")]))
        places = sources(asked, questions, unseen=unseen, data=data, options=options)
        kept = _parts(budgets)
        counts = [_budget(budget) for budget in kept if budget != "auto"]
        specs = list(dict.fromkeys([*split_specs(methods), "random"]))
        for spec in specs:
            method = make(spec).parts[-1]
            if method.keep != type(method).keep:
                raise PrumergeError(f"{spec}: budgets are the same for all methods, give them by --keep")
        specs = [spec for spec in specs if spec != "none"]
        return cls(tuple(specs), tuple(dict.fromkeys(counts)), "auto" in kept, places)

    @cached_property
    def showings(self) -> tuple[Showing, ...]:
        """Every picture and clip with all that is asked about it, none of them open. Raises PrumergeError for
        what is wrong with the files of a task."""
        return tuple(showings(self.tasks))

    def settings(self, name: str, model: Any, options: Options | None = None) -> dict[str, Any]:
        """What answers depend on; methods, budgets and tasks may be added to a run."""
        options = options or DEFAULT
        changed = options.changed()
        changed.pop("positions", None)
        if options.placing != "compact":  # what `auto` was decided to be
            changed["positions"] = options.placing
        if "relevance" in changed:
            changed["relevance"] = True  # a function has no text; whose it is belongs to the caller
        return {
            "model": name,
            "weights": fingerprint(model),
            "device": device_of(model).type,
            **changed,
            "asked": described(self.tasks, (one for _, about in self.showings for one in about)),
        }

    def fixed(self, tokens: VisualTokens) -> list[Job]:
        """`none`, and every method at every budget; `tokens` is any picture or clip to count on, with words
        for methods that read them."""
        available = tokens.patches // tokens.grid[0]
        counts = dict.fromkeys(
            budget if isinstance(budget, int) else max(1, int(budget * available + 1e-9))
            for budget in self.budgets
        )
        return [
            Job("none", "none"),
            *(at(spec, count, tokens) for count in counts for spec in self.methods),
        ]

    def own_choice(self) -> list[Job]:
        """Adaptive methods without a budget."""
        return [Job(f"{spec}@auto", spec) for spec in self.methods if self.adaptive and is_adaptive(spec)]


@torch.inference_mode()
def at(spec: str, budget: int, tokens: VisualTokens) -> Job:
    """A method that hands over exactly `budget` tokens of a picture or of each frame of a clip.

    One that hands over more than its `keep` (PruMerge's extra token) is given a smaller one. Inside the
    language model `keep` is what the paper calls so; the records say how many tokens its layers read. A
    method that compares frames gets the budget of all frames together, and chooses how to divide it.

    Raises PrumergeError where a method cannot hand over so few or so many.
    """
    frames = tokens.frames() if tokens.grid[0] > 1 else [tokens]
    together = compares_frames(make(spec))
    seen, keep = (tokens, budget * len(frames)) if together else (frames[0], budget)
    method = make(with_keep(spec, keep))
    before = method.placed.before
    surplus = 0
    if before is not None and method.parts[-1].place == Reducer.place:
        surplus = len(before(seen)) - keep
    if surplus >= keep:
        raise PrumergeError(f"{spec} cannot hand over as few as {budget} visual tokens")
    return Job(f"{spec}@{budget}", with_keep(spec, keep - surplus))


def compares_frames(method: Reducer) -> bool:
    """Whether a clip is one video to a method; to others its frames are pictures."""
    return any(part.video for part in method.parts)


def is_adaptive(spec: str) -> bool:
    """Whether a method chooses by itself how many tokens it keeps."""
    method = make(spec).parts[-1]
    return method.adaptive and method.keep is None


def _budget(text: str) -> int | float:
    """A count, or a share such as 25% or 0.25. Raises PrumergeError for anything else."""
    number = text.removesuffix("%")
    if number == text and number.isdecimal() and int(number):
        return int(number)
    try:
        share = float(number) / (100 if number != text else 1)
    except ValueError:
        share = 0
    if not 0 < share < 1:
        raise PrumergeError(
            "budgets are whole numbers of visual tokens, shares of them or auto, such as 36,25%,auto, not "
            f"{short(text)!r}"
        )
    return share


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
