"""`prumerge evaluate` on the embedded model, kept: every method at 36 and 144 tokens and at its own choice.

    python benchmarks/accuracy.py [--questions 504]

Answers gather in `evaluation/methods/` (not committed); a run that was stopped continues. What is committed
is the summary, with machine, versions and date.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measure import save

FOLDER = Path("evaluation/methods")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=504)
    questions = parser.parse_args().questions
    command = Path(sys.executable).parent / "prumerge"
    subprocess.run([command, "evaluate", "-o", FOLDER, "--questions", str(questions)], check=True)
    summary = json.loads((FOLDER / "summary.json").read_text())
    save("accuracy", {"questions": questions, **summary})


if __name__ == "__main__":
    main()
