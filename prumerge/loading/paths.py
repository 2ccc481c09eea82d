"""Names of files as users give them: what is no path, and what is not there, is said in one sentence."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from prumerge.errors import PrumergeError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # two letters at least: C:/ is a path


def existing(path: Any, wanted: str) -> Path:
    """The path of a file or folder that is there; a file holds at least one byte.

    `wanted` says what should be there ("picture"). Raises PrumergeError for what is no path (an address, data
    written out as text, an object of another type), and for one that leads nowhere or to an empty file.
    """
    if not isinstance(path, str | os.PathLike):
        raise PrumergeError(
            f"a {wanted} is opened by its path, not by {_kind(path)}; a picture that is open already is "
            "passed on as it is"
        )
    text = os.fsdecode(path)
    if text.lower().startswith("data:"):
        raise PrumergeError(f"{shown(text)} is data written out as text; save it as a file and give its path")
    if _ADDRESS.match(text):
        raise PrumergeError(f"{shown(text)} is an address; download the file first and give its path")
    if not text or not os.path.exists(text):  # False as well for names that no file can have
        raise PrumergeError(f"there is no {wanted} at {shown(text)}")
    found = Path(text)
    if not found.is_dir() and not found.is_file():
        raise PrumergeError(f"{shown(text)} is no file; give the path of a {wanted}")
    if found.is_file() and not found.stat().st_size:
        raise PrumergeError(f"{shown(text)} is empty")
    return found


def shown(path: str | os.PathLike[str]) -> str:
    """A path in quotes, the middle of a very long one left out."""
    text = os.fsdecode(path)
    return repr(text if len(text) <= 240 else f"{text[:60]}...{text[-60:]}")


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a sentence of one's own; its type where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    first = " ".join(said[:2]) if said[0].endswith(":") else said[0]
    return re.sub(r"^\[Errno -?\d+\] ", "", first).split(". ")[0].rstrip(".")


def _kind(thing: object) -> str:
    return "None" if thing is None else f"an object of type {type(thing).__name__}"
