"""The embedded model: a genuine LLaVA of six million parameters, its scenes, weights and trainer.

Nothing heavy is imported before it is used.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prumerge.errors import PrumergeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from prumerge.tiny.questions import Question

WEIGHTS = Path(__file__).parent / "weights"
SAMPLES = Path(__file__).parent / "samples"
SCENES_PER_SEED = 20_000
NAMES = ("tiny", "tiny:full", "tiny:hard")
"""What `weights` knows."""


def weights(name: str = "tiny") -> Path:
    """The folder of the embedded model, or of one that is in the repository, not in the package: `tiny:full`,
    which only saw all visual tokens, or `tiny:hard`, which saw hard scenes and clips for longer. Raises
    PrumergeError where it is not there."""
    if name == "tiny":
        return WEIGHTS
    folder = Path(__file__).parent.parent.parent / "benchmarks" / name.replace(":", "_")
    if not folder.is_dir():
        raise PrumergeError(f"{name!r} is in a clone of the repository only; take 'tiny'")
    return folder


@dataclass(frozen=True)
class Sample:
    """A shipped picture and questions about it with their answers."""

    path: Path
    questions: "list[Question]"


def samples() -> list[Sample]:
    from prumerge.tiny.questions import Question

    entries = json.loads((SAMPLES / "samples.json").read_text())
    return [
        Sample(SAMPLES / entry["image"], [Question(**q) for q in entry["questions"]]) for entry in entries
    ]


def held_out(count: int, seed: int = 0) -> "Iterator[tuple[Image, Question]]":
    """Pictures the model was not trained on, with one question each; the families take turns.

    Each seed below 40 has its own scenes.
    """
    from prumerge.tiny.questions import balanced
    from prumerge.tiny.scenes import HELD_OUT, scene

    if not 0 <= seed < 40:
        raise ValueError(f"seed must be from 0 to 39, not {seed}")
    first = HELD_OUT.start + seed * SCENES_PER_SEED
    scenes = (scene(number) for number in range(first, first + SCENES_PER_SEED))
    for drawn, question in balanced(scenes, count, seed):
        yield drawn.image, question
