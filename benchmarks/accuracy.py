"""`prumerge evaluate` on the embedded model, kept: what the README and `docs/results.md` show.

    python benchmarks/accuracy.py [--questions 504]

accuracy: PruMerge and the baselines at 36 and 144 tokens and at their own choice. every_method: every
method of this package at 36, 64 and 144. unseen: at 36 tokens on a font and on coloured shapes that
training never showed. video: on clips of eight frames, 16, 36 and 144 tokens of each frame.

Answers gather in `evaluation/` (not committed); a run that was stopped continues. What is committed is the
summary, with machine, versions and date; docs/generate.py draws the picture of all methods from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measure import save

from prumerge.catalogue import built_in, entry

FOLDER = Path("evaluation")
METHODS = "prumerge,prumerge_plus,topk,spatial,pool,sequential"
OF_CLIPS = [name for name in built_in() if "frames" in entry(name).needs]
EVERY = dict.fromkeys(["prumerge", *(name for name in built_in() if name not in OF_CLIPS)])
CLIPS = ["--benchmark", "video"]
RUNS = {
    "accuracy": [["--reducer", METHODS, "--keep", "36,144,auto"]],
    "every_method": [["--reducer", ",".join(EVERY), "--keep", "36,64,144"]],
    "unseen": [["--reducer", METHODS, "--keep", "36", "--unseen"]],
    "video": [
        ["--reducer", f"{METHODS},vidcom2", "--keep", "16,36", *CLIPS],
        # EVS keeps the whole first frame: 72 tokens of each of eight
        ["--reducer", ",".join(["prumerge", *OF_CLIPS]), "--keep", "144", *CLIPS],
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=504)
    parser.add_argument("--only", choices=RUNS, nargs="*", default=list(RUNS))
    options = parser.parse_args()
    command = Path(sys.executable).parent / "prumerge"
    for name in options.only:
        # a clip costs as much as eight pictures
        questions = options.questions if name != "video" else max(24, options.questions // 4 // 24 * 24)
        for methods in RUNS[name]:
            arguments = ["-o", FOLDER / name, "--questions", str(questions), *methods]
            subprocess.run([command, "evaluate", *arguments], check=True, stdout=subprocess.DEVNULL)
        save(name, {"questions": questions, **json.loads((FOLDER / name / "summary.json").read_text())})


if __name__ == "__main__":
    main()
