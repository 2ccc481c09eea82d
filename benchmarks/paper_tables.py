"""The tables of PruMerge's paper, on the embedded model: what `docs/results.md` shows.

    python benchmarks/paper_tables.py [--questions 504]

Table 1: untouched, PruMerge and PruMerge+ by their own choice. Table 4: against sequential and spatial
sampling at equal tokens. Table 5: selection alone against selection and merging. Ablation: every option of
PruMerge at 36 tokens. All training-free. Answers gather in `evaluation/paper/`; a run that was stopped
continues.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from measure import save

from prumerge.evaluate.log import read
from prumerge.evaluate.records import by_method
from prumerge.evaluate.report import paired, summarise

FOLDER = Path("evaluation/paper")
OPTIONS = [
    "order=spatial",
    "heads=split",
    "candidates=pruned",
    "merge=average",
    "extra_token=off",
    "k=8",
    "k=auto",
]
VARIANTS = [f"prumerge:{option}" for option in [*OPTIONS, "variant=paper"]]
RUNS = [
    ("prumerge,prumerge_plus", "auto"),
    ("prumerge,spatial,sequential", "16,35,40"),
    ("prumerge,topk", "40"),
    (",".join(["prumerge", *VARIANTS]), "36"),
]
# Table: methods by label, each compared with the first.
TABLES = {
    "table_1": ["none", "prumerge@auto", "prumerge_plus@auto"],
    "table_4": [
        f"{name}@{count}" for count in (40, 35, 16) for name in ("prumerge", "spatial", "sequential")
    ],
    "table_5": ["prumerge@40", "topk@40"],
    "ablation": ["prumerge@36", *(f"{variant}@36" for variant in VARIANTS)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=504)
    questions = parser.parse_args().questions
    command = Path(sys.executable).parent / "prumerge"
    for methods, budgets in RUNS:
        arguments = ["-o", FOLDER, "--reducer", methods, "--keep", budgets, "--questions", str(questions)]
        subprocess.run([command, "evaluate", *arguments], check=True, stdout=subprocess.DEVNULL)
    _, records = read(FOLDER / "answers.jsonl")
    groups = by_method(records)
    rows = {row.method: row for row in summarise(groups)}
    tables = {}
    for name, labels in TABLES.items():
        tables[name] = []
        for place, label in enumerate(labels):
            rival = labels[place - place % 3] if name == "table_4" else labels[0]
            other = {record.id: record.score for record in groups[rival]}
            against = asdict(paired(groups[label], other)) if label != rival else None
            row = rows[label]
            tables[name].append(
                {
                    "method": label,
                    "tokens": row.tokens,
                    "tokens_low": row.tokens_low,
                    "tokens_high": row.tokens_high,
                    "scores": row.scores,
                    "accuracy": row.accuracy,
                    "against": against,
                }
            )
    save("paper_tables", {"questions": questions, **tables})


if __name__ == "__main__":
    main()
