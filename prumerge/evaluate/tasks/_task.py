"""What a task is: pictures with questions about them, how an answer is scored, and what is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from PIL import Image


@dataclass(frozen=True)
class Question:
    """One question to be asked and scored."""

    task: str
    id: str
    """Of its own within the task."""
    picture: str
    """What belongs together: the key of its picture or clip."""
    text: str
    """As the model is asked, with what the benchmark's protocol puts behind it, without any placeholder."""
    gold: tuple[str, ...]
    """Right answers; of benchmarks with annotators one each, repeated as they were given."""
    split: str = ""
    """POPE's kind of negatives, MME's subtask, ..."""
    group: str = ""
    """Questions that count only together: an MME pair, the rotations of one choice."""
    options: int = 0
    """Lettered choices, if any."""


Shown: TypeAlias = Callable[[], list[Image.Image]]
"""Opens a picture (one of them), or the frames of a clip; nothing is opened before it is called."""


@runtime_checkable
class Scored(Protocol):
    """An answer with its score; the records of a run are such."""

    @property
    def split(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def gold(self) -> tuple[str, ...]: ...
    @property
    def prediction(self) -> str: ...
    @property
    def score(self) -> float: ...


@dataclass(frozen=True)
class Source:
    """What of a task is asked."""

    data: Path | None = None
    """The folder (or file) on the user's disk; None for tasks that need none."""
    count: int | None = None
    """Questions at most; None: all there are."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What a task lets its user choose, such as {"ocr": "yes"}."""


@dataclass(frozen=True)
class Task:
    """One task; its name is that of its file."""

    mirrors: str
    """The benchmark that it is, or mirrors, and where that is published."""
    measure: str
    """What its one number is, such as "mean F1 of 3 splits"."""
    read: Callable[[Source], Iterator[tuple[Shown, list[Question]]]]
    """Each picture or clip once, with all that is asked about it. Raises PrumergeError where the folder lacks
    a file, naming it and where it is published, and for label files that are not what they should be."""
    score: Callable[[Question, str], float]
    """One answer's score, 0 to 1."""
    summary: Callable[[Sequence[Scored]], float]
    """The task's one number; in percent, but for MME's points."""
    details: Callable[[Sequence[Scored]], dict[str, float]] = lambda records: {}
    """Other numbers that its papers report."""
    data: str = ""
    """What of the user's disk it reads; empty for tasks that bring their own."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What `Source.options` may hold for this task, and what each option means."""
    max_new_tokens: int = 16
    frames: int = 1
    """More than 1: of a clip."""
    judged: bool = False
    """Whether a language model may be asked if an answer means the right one (see `prumerge.evaluate.judge`):
    of tasks whose questions are open."""
