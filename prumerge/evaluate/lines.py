"""A file of JSON objects, one a line, each written at once: whoever writes it can be killed anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prumerge.errors import PrumergeError, short


class Lines:
    """What such a file holds, and more lines for it."""

    def __init__(self, path: Path) -> None:
        """Read what is there, but for a last line that was not finished; it is cut off with the next one that
        is appended.

        Raises PrumergeError for a file that cannot be read, and for a line that is no JSON object, naming it.
        """
        self.path = path
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise PrumergeError(f"{path} cannot be read ({error.strerror}); name another") from None
        self._whole = data.rfind(b"\n") + 1
        self.rows: list[dict[str, Any]] = [
            _row(line, f"{path}, line {number}")
            for number, line in enumerate(data[: self._whole].split(b"\n")[:-1], 1)
        ]

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Write objects through to the file. PrumergeError, naming the file and what is safe in it, for
        whatever the file system refuses."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        lines = text.encode(errors="surrogatepass")  # whatever a server sends can be kept
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                if file.tell() > self._whole:
                    file.truncate(self._whole)
                file.write(lines)
        except OSError as error:
            raise PrumergeError(
                f"{self.path} cannot be written ({error.strerror}); {len(self.rows)} lines are safe in it, "
                "the same command goes on from there"
            ) from error
        self._whole += len(lines)
        self.rows += map(dict, rows)


def _row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        text = short(line.decode(errors="replace"), 30)
        raise PrumergeError(f"{place}: {text!r} is no JSON object; take the line out, or name another file")
    return row
