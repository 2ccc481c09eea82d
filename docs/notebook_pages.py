"""The notebooks of docs/notebooks, executed, and as pages of the site.

python docs/notebook_pages.py    # execute all into build/notebooks: `make notebooks`
"""

from __future__ import annotations

import base64
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/prumerge/prumerge/blob/main/"
EXECUTED = ROOT / "build" / "notebooks"
ORDER = ("quick_start", "compare", "own_method", "fine_tune", "serve")
"""As the site lists them; each is a file docs/notebooks/NAME.py, cells apart by `# %%`."""


def source(name: str) -> Path:
    return ROOT / "docs" / "notebooks" / f"{name}.py"


def title(name: str) -> str:
    """What the notebook's first heading says."""
    found = re.search(r"^# # (.+)$", source(name).read_text(), re.M)
    assert found is not None
    return found[1]


def execute(name: str) -> Path:
    """Run a notebook in a kernel of its own and write it with its outputs; a cell that fails raises."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(source(name), fmt="py:percent")
    where, quiet = {"metadata": {"path": ROOT}}, ["--IPKernelApp.log_level=ERROR"]
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=where, extra_arguments=quiet
    )
    client.execute()
    target = EXECUTED / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(notebook, target, fmt="ipynb")
    return target


def page(name: str, notebook: Any) -> tuple[str, dict[str, bytes]]:
    """An executed notebook as Markdown, and the pictures it shows by their names."""
    path = source(name).relative_to(ROOT).as_posix()
    link = f"[As a notebook]({name}.ipynb) · [as a program]({REPOSITORY}{path})"
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        text = cell["source"]
        if cell["cell_type"] == "markdown":
            parts.append(text if parts else f"{text}\n\n{link}")
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above shows]({picture})")
            elif output.get("name") == "stdout" or "text/plain" in data:  # warnings and bars are left out
                shown = data.get("text/plain", output.get("text", "")).rstrip()
                parts.append(f"```text\n{shown}\n```")
    return "\n\n".join(parts) + "\n", pictures


def read(name: str) -> Any:
    """An executed notebook. Raises FileNotFoundError, saying what to do, where this source has none."""
    target = EXECUTED / f"{name}.ipynb"
    if not target.is_file() or target.stat().st_mtime < source(name).stat().st_mtime:
        raise FileNotFoundError(f"{target} is not there or older than its source; run `make notebooks`")
    import nbformat

    return nbformat.read(target, as_version=4)


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in ORDER:
        start = time.perf_counter()
        target = execute(name)
        print(f"{target.relative_to(ROOT)}: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
