"""Time of `prumerge --help` and `prumerge methods`, beside an empty Python and `import torch`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from measure import rounds, save


def main() -> None:
    command = str(Path(sys.executable).parent / "prumerge")

    def run(*arguments: str) -> None:
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

    times = rounds(
        {
            "python_ms": lambda: run(sys.executable, "-c", ""),
            "help_ms": lambda: run(command, "--help"),
            "methods_ms": lambda: run(command, "methods"),
            "import_torch_ms": lambda: run(sys.executable, "-c", "import torch"),
        },
        count=11,
    )
    save("startup", times)


if __name__ == "__main__":
    main()
