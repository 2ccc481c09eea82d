"""Is the wheel in a folder what users should get? `python .ci/check_wheel.py dist`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from zipfile import ZipFile

LIMIT = 20 * 2**20
WANTED = (
    "prumerge/py.typed",
    "prumerge/tiny/weights/model.safetensors",
    "prumerge/tiny/NOTICE",
    "prumerge/serve/page/index.html",
    "prumerge/serve/page/style.css",
    "prumerge/serve/page/main.js",
)
UNWANTED = re.compile(r"prumerge/tiny/(train|learn_|draw_)|(^|/)(tests|benchmarks|docs)/")


def problems(wheel: Path) -> list[str]:
    """One sentence for each thing that is wrong."""
    found = []
    if wheel.stat().st_size > LIMIT:
        found.append(
            f"{wheel.name} has {wheel.stat().st_size / 2**20:.1f} MiB, more than {LIMIT / 2**20:.0f}"
        )
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    found += [f"{name} is missing" for name in WANTED if name not in names]
    found += [f"{name} should not be in it" for name in names if UNWANTED.search(name)]
    found += [
        f"the link {link} leads nowhere on PyPI" for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text)
    ]
    return found


def main() -> None:
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    found = problems(wheel)
    print("\n".join(found) or f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, good")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
