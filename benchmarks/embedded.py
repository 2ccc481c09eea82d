"""What the embedded model can do with all visual tokens, and how fast `prumerge evaluate` asks it.

    python benchmarks/embedded.py [--count 1200]

Families of questions on held-out scenes beside the best answer that never looks, and the goal that was set.
Speed and memory are those of a fresh `prumerge evaluate` at 36 tokens, its start included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import save

from prumerge.tiny import WEIGHTS
from prumerge.tiny.check import check

GOALS = {
    "attribute": 95,
    "existence": 90,
    "counting": 80,
    "spatial": 65,
    "multiple choice": 80,
    "reading": 80,
}
QUESTIONS, BENCHMARKS, METHODS = 120, 6, 3  # none and random always take part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1200)
    speed = evaluate()
    found = check(WEIGHTS, parser.parse_args().count)
    outliers = found.pop("attention outliers")
    families = {name: {"goal": GOALS[name], **found[name]} for name in GOALS}
    save("embedded", {"families": families, "attention_outliers": outliers, "evaluate": speed})


def evaluate() -> dict[str, float]:
    """Questions per second and peak memory."""
    command = Path(sys.executable).parent / "prumerge"
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-o", folder, "--reducer", "prumerge", "--keep", "36", "--questions", str(QUESTIONS)]
        start = time.perf_counter()
        subprocess.run([command, "evaluate", *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    answers = QUESTIONS * BENCHMARKS * METHODS
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2  # of KiB on Linux
    return {"answers": answers, "seconds": seconds, "per_second": answers / seconds, "peak_gib": peak}


if __name__ == "__main__":
    main()
