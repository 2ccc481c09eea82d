"""Run a part of the tests with the lowest versions that pyproject.toml names.

    python .ci/compat.py [pytest's arguments]

The environment lies outside of the repository, in the folder PRUMERGE_COMPAT or beside other temporary files,
and is made anew when the versions change. It needs Python 3.11 or newer to read pyproject.toml, and
PRUMERGE_COMPAT_PYTHON (default: this Python) to run the tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
TESTS = [
    "tests/test_ops.py",
    "tests/test_spec.py",
    "tests/test_compose.py",
    "tests/test_drawing.py",
    "tests/test_catalogue.py",
    "tests/reducers/test_prumerge.py",
    "tests/reducers/test_reference.py",
    "tests/pipeline/test_prompt.py",
    "tests/pipeline/test_splice.py",
    "tests/generate/test_answer.py",
    "tests/cli/test_output.py",
]
NEWER = ("VipLlava", "InternVL", "VideoLlava", "video_llava", "Idefics2", "Idefics3", "SmolVLM")
"""Families that need a newer Transformers, as their files say (`Family.since`)."""
TOOLS = ["pytest>=8.3", "pytest-timeout", "pytest-xdist", "hypothesis", "beartype"]


def lowest(extras: tuple[str, ...] = ("plot",)) -> list[str]:
    """Each dependency at its lower bound, as pip takes it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in extras for each in project["optional-dependencies"][extra]),
    ]
    return [re.sub(r">=([\d.]+).*", r"==\1", each) for each in wanted]


def main() -> None:
    python = os.environ.get("PRUMERGE_COMPAT_PYTHON", sys.executable)
    home = Path(os.environ.get("PRUMERGE_COMPAT", Path(tempfile.gettempdir()) / "prumerge-compat"))
    versions = [*lowest(), *TOOLS]
    made = home / "versions.txt"
    if not made.is_file() or made.read_text() != "\n".join([python, *versions]):
        subprocess.run([python, "-m", "venv", "--clear", home], check=True)
        pip = [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *versions], check=True)
        subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True)
        made.write_text("\n".join([python, *versions]))
    print("lowest versions:", ", ".join(lowest()), flush=True)
    # Old packages warn of what newer ones will drop; with today's versions warnings are errors.
    quiet = [
        "-q",
        "-n",
        "auto",
        "--dist",
        "loadfile",
        "-W",
        "ignore::DeprecationWarning",
        "-p",
        "no:cacheprovider",
    ]
    chosen = ["-k", f"not ({' or '.join(NEWER)})"]
    done = subprocess.run([home / "bin" / "pytest", *quiet, *chosen, *(sys.argv[1:] or TESTS)], cwd=ROOT)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
