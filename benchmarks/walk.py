"""How far one picture walks through the package: calls of its functions and changes of file.

Counted by the interpreter (comprehensions are no calls), for `reduce`, for an attached `generate`, and for an
evaluation of 72 answers.

python benchmarks/walk.py
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from measure import save

import prumerge
from prumerge.evaluate.log import Log
from prumerge.evaluate.plan import Plan
from prumerge.evaluate.run import run
from prumerge.tiny import samples

ROOT = str(Path(prumerge.__file__).parent)
BEFORE = {"reduce": (132, 58), "attach": (162, None), "evaluate": (3542, None)}
"""What the same walks were in version 0.1.0's last commit with one module a step (2b52f09)."""


@dataclass
class Walk:
    """Counts while a profiler calls it."""

    calls: int = 0
    changes: int = 0
    last: str = ""
    files: set[str] = field(default_factory=set)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(ROOT) or code.co_name.startswith("<"):
            return
        self.calls += 1
        self.changes += code.co_filename != self.last
        self.last = code.co_filename
        self.files.add(code.co_filename)


def walk(call: Callable[[], Any]) -> dict[str, int]:
    """Of a second call, when all that is looked up once is known."""
    call()
    counted = Walk()
    sys.setprofile(counted)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {"calls": counted.calls, "changes_of_file": counted.changes, "files": len(counted.files)}


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    model, processor = prumerge.load("tiny")
    image = prumerge.open_image(samples()[0].path)
    text = "USER: <image>\nis there a heart? ASSISTANT:"
    inputs = processor(images=image, text=text, return_tensors="pt")

    def attached(spec: str) -> None:
        with prumerge.attach(model, spec):
            model.generate(**inputs, max_new_tokens=8, do_sample=False)

    def evaluated() -> None:
        plan = Plan.read("prumerge", "36", "existence", 24)  # with none and random: 72 answers
        with tempfile.TemporaryDirectory() as folder:
            run(model, processor, plan, Log(Path(folder) / "answers.jsonl", {}), lambda done, total: None)

    found: dict[str, Any] = {}
    for spec in ("prumerge_plus", "prumerge", "prumerge:keep=36"):
        found[spec] = {
            "reduce": walk(lambda spec=spec: prumerge.reduce(model, inputs, spec)),
            "attach": walk(lambda spec=spec: attached(spec)),
        }
    save("walk", {"methods": found, "evaluate_72_answers": walk(evaluated), "before": BEFORE})


if __name__ == "__main__":
    main()
