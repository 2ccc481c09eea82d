"""The table of docs/reproduce.md: which command makes which result, and how long it took.

A time is the one that the last run of the command wrote into its result; where none did, an estimate from the
answers that `prumerge evaluate` gives in a second on two cores, marked by a star.
"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"

ROWS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "[Tables 1, 4, 5 of the paper, every option of PruMerge](results.md)",
        "`python benchmarks/paper_tables.py`",
        ("paper_tables",),
        "40 min",
    ),
    (
        "[README's accuracy, every budget, every method, never shown, clips](results.md#every-method)",
        "`python benchmarks/accuracy.py`",
        ("accuracy", "unseen", "video", "every_method"),
        "90 min",
    ),
    (
        "[what the embedded model can do](results.md#the-instrument)",
        "`python benchmarks/embedded.py`",
        ("embedded",),
        "5 min",
    ),
    (
        "[easy-VQA](results.md#data-that-nobody-here-made-easy-vqa)",
        "`python benchmarks/easy_vqa_split.py --state build/paper/easy`",
        ("easy_vqa",),
        "1 h",
    ),
    (
        "[adaptation](results.md#adaptation-a-reader-that-only-ever-saw-all-tokens)",
        "`python benchmarks/adaptation.py --state build/paper/adaptation`",
        ("adaptation",),
        "2 h",
    ),
    (
        "[a method of our own, and sizes](results.md#medoids-and-sizes-on-two-readers)",
        "`python benchmarks/own_method.py --state build/paper/own`",
        ("own_method",),
        "1 h",
    ),
    (
        "[sizes and positions](results.md#sizes-and-positions)",
        "`python benchmarks/positions.py --state build/paper/positions`",
        ("positions",),
        "2 h",
    ),
    (
        "[the hard test](results.md#hard-scenes)",
        "`python benchmarks/hard.py --state build/paper/hard`",
        ("hard",),
        "1 h",
    ),
    (
        "[lossless decoding](results.md#lossless-decoding)",
        "`python benchmarks/lossless.py`",
        ("lossless",),
        "20 min",
    ),
    ("[prefixes](methods.md#linformer-and-reformer)", "`python benchmarks/prefix.py`", ("prefix",), "10 min"),
    (
        "[what choosing costs](methods.md#what-choosing-costs)",
        "`python benchmarks/methods.py`, `medoids.py`, `launches.py`",
        ("methods", "medoids", "launches"),
        "10 min",
    ),
    (
        "[speed](evaluating.md#speed): PruMerge, encoder, prefill, start",
        "`python benchmarks/reduction.py`, `encoder.py`, `llava_7b_shape.py`, `startup.py`",
        ("reduction", "encoder", "llava_7b_shape", "startup"),
        "5 min",
    ),
    (
        "[the embedded model beside its roofline](bench.md)",
        "`prumerge bench --save benchmarks/results/bench_tiny.json -o docs/images/bench.png`",
        ("bench_tiny",),
        "2 min",
    ),
    ("[a step of training](roofline.md)", "`python benchmarks/training.py`", ("training",), "10 min"),
    ("[on a GPU](gpu.md)", "`python benchmarks/gpu.py`", ("gpu",), "3 min"),
)


def reproduce() -> str:
    """Commands, what they write, and their times."""
    lines = ["| what | command | result | time |", "|---|---|---|---:|"]
    for what, command, names, guess in ROWS:
        written = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {what} | {command} | {written} | {_time(names) or guess + ' *'} |")
    return "\n".join(lines)


def _time(names: tuple[str, ...]) -> str | None:
    """Of all results of a command together, if each says how long it took."""
    found = []
    for path in (RESULTS / f"{name}.json" for name in names):
        told = json.loads(path.read_text()).get("seconds") if path.exists() else None
        if told is None:
            return None
        found.append(sum(told.values()) if isinstance(told, dict) else told)
    seconds = sum(found)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
