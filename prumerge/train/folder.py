"""The folder of a run: whose it is, its checkpoints, and what is said when the file system refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prumerge.errors import PrumergeError
from prumerge.evaluate.log import differences


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write what this run is; PrumergeError where the folder is another one's."""
    file = folder / "run.json"
    if file.is_file():
        try:
            before = json.loads(file.read_text())
        except ValueError:
            raise PrumergeError(f"{file} cannot be read; choose another --output") from None
        if told := differences(before, settings):
            raise PrumergeError(
                f"{folder} is a run with other settings ({'; '.join(told)}); choose another --output"
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise PrumergeError(f"{folder} holds other things than a run; choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(settings, indent=1) + "\n")


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """What the file system refuses is said in one sentence; checkpoints written before are whole."""
    try:
        yield
    except PrumergeError:
        raise
    except Exception as error:
        reason = _refusal(error)
        if reason is None:
            raise
        raise PrumergeError(
            f"{folder} cannot be written ({reason}); make room or name another place: the same command goes "
            "on from the last whole checkpoint"
        ) from error


_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
# What safetensors and torch make of a disk that is full.
_WRAPPED = ("No space left", "File too large", "Disk quota", "file write failed", "unexpected pos")


def _refusal(error: Exception) -> str | None:
    """What the file system says, if it is that: a file that is missing is a fault in code."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in _REFUSED else None
    return "the disk is full" if any(sign in str(error) for sign in _WRAPPED) else None


def last_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written whole; what a kill left half written is taken away."""
    for path in sorted((folder / "checkpoints").glob("checkpoint-*"), key=_step, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())  # which is written last
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        return path
    return None


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never half there."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text)
    os.replace(draft, path)
