"""Training in a minute: the embedded model on scenes that it never saw, with accuracy before and after."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prumerge.evaluate.answering import Asker
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Plan
from prumerge.evaluate.run import ask, sample
from prumerge.loading.fingerprint import fingerprint
from prumerge.pipeline.options import Options
from prumerge.tiny.questions import balanced
from prumerge.tiny.scenes import TRAIN, scene
from prumerge.train.rows import Rows

FIRST = TRAIN.start + 7_500_000
"""Scenes from this seed on were drawn for no stage of the embedded model's own training."""


def drawn_rows(count: int, seed: int = 0) -> Rows:
    """Rows with a question each, of all kinds in turn, about scenes that no model here was trained on."""
    scenes = (scene(number) for number in range(FIRST + 100_000 * seed, FIRST + 100_000 * (seed + 1)))
    return Rows.read(
        [
            {"image": _encoded(drawn.image), "question": question.text, "answer": question.answer}
            for drawn, question in balanced(scenes, count, seed)
        ]
    )


def accuracy(
    model: Any,
    processor: Any,
    reducer: str,
    visual: int,
    questions: int,
    track: Callable[[int, int], None] = lambda done, total: None,
    options: Options | None = None,
) -> dict[str, tuple[int, int]]:
    """Right answers and questions of the six mini-benchmarks, with all visual tokens (`none`) and with this
    many, by a label for each. `track` is told how many are answered, and how many there are."""
    plan = Plan.read(reducer, str(visual), "all", questions)
    asker = Asker(model, processor, options or Options())
    jobs = [job for job in plan.fixed(sample(asker, plan.showings)) if not job.label.startswith("random")]
    total, done = len(jobs) * questions * len(plan.tasks), 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        track(done, total)

    with TemporaryDirectory() as folder:
        log = Log(Path(folder) / "answers.jsonl", {"weights": fingerprint(model)})
        ask(asker, jobs, plan.showings, log, more)
    scores = {job.label: [each.score for each in log.records if each.method == job.label] for job in jobs}
    return {label: (round(sum(own)), len(own)) for label, own in scores.items()}


def _encoded(image: Any) -> dict[str, Any]:
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return {"bytes": file.getvalue(), "path": None}
