"""Where the files of a checkpoint are: in a folder, or on the Hugging Face hub, which is asked once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import file_exists, is_offline_mode, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import cached_file

from prumerge.errors import PrumergeError
from prumerge.loading.paths import first_line, shown

# The options of `from_pretrained` that say where files are: configuration, processor and weights share them.
_FILES = ("revision", "cache_dir", "token", "local_files_only", "force_download")
_CODE = ("trust_remote_code", "code_revision")


@dataclass(frozen=True)
class Source:
    """A checkpoint that was found: its name, and what its config.json holds."""

    name: str
    """A folder, or an id on the hub."""
    options: Mapping[str, Any]
    """For `from_pretrained`, of configuration, processor and model alike."""
    settings: Mapping[str, Any]
    """Of config.json."""

    def folder(self, *patterns: str) -> Path:
        """The folder with these files, fetched from the hub if it is an id."""
        if os.path.isdir(self.name):
            return Path(self.name)
        inside = self.options.get("subfolder", "")
        files = {name: self.options[name] for name in _FILES if name in self.options}
        wanted = [os.path.join(inside, pattern) for pattern in patterns]
        return Path(snapshot_download(self.name, allow_patterns=wanted, **files)) / inside


def find(name: str | os.PathLike[str], options: dict[str, Any]) -> Source:
    """The checkpoint of this name; what `options` say about its files is moved out of them.

    Raises PrumergeError for what is no name, and where there is no checkpoint or its config.json cannot be
    read.
    """
    if not isinstance(name, str | os.PathLike):
        raise PrumergeError(f"a model is loaded by its name or folder, not by {name!r}")
    name = os.fspath(name)
    given = {key: options.pop(key) for key in (*_FILES, *_CODE, "subfolder") if key in options}
    if os.path.isdir(name):
        name = str(Path(name, given.pop("subfolder", None) or ""))
        file = os.path.join(name, "config.json")
        if not os.path.isfile(file):
            raise _nowhere(name, "the folder has no config.json")
    else:
        file = _from_hub(name, given)
    return Source(name, given, read_settings(file))


def read_settings(file: str | os.PathLike[str]) -> dict[str, Any]:
    """What a config.json holds. Raises PrumergeError if it holds no names and values."""
    try:
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrumergeError(
            f"{shown(file)} cannot be read ({first_line(error)}); get a whole copy"
        ) from error
    if not isinstance(settings, dict):
        raise PrumergeError(f"{shown(file)} holds no names and values; get a whole copy of the checkpoint")
    return settings


def _from_hub(name: str, given: Mapping[str, Any]) -> str:
    """The file config.json of an id.

    Transformers would try for half a minute where the hub cannot be reached, so it is asked once, right away,
    unless the file is here already.
    """
    try:
        validate_repo_id(name)
    except ValueError:
        raise _nowhere(name, "there is no such folder") from None
    inside = os.path.join(given.get("subfolder") or "", "config.json")
    place = {key: given[key] for key in ("revision", "cache_dir") if key in given}
    is_here = isinstance(try_to_load_from_cache(name, inside, **place), str)
    if not is_here and not given.get("local_files_only") and not is_offline_mode():
        access = {key: given[key] for key in ("revision", "token") if key in given}
        try:
            is_there = file_exists(name, inside, **access)
        except GatedRepoError as error:
            raise PrumergeError(
                f"{name!r} is given out on request: ask for it on its page, then log in (hf auth login)"
            ) from error
        except Exception as error:  # of a network, each library has its own
            raise _nowhere(name, f"the hub cannot be reached: {first_line(error)}") from error
        if not is_there:
            raise _nowhere(name, "the hub has no such model, or no such revision, or none that you may read")
    files = {key: given[key] for key in (*_FILES, "subfolder") if given.get(key) is not None}
    try:
        found = cached_file(name, "config.json", **files)
    except (OSError, ValueError) as error:
        raise _nowhere(name, first_line(error)) from error
    if found is None:
        raise _nowhere(name, "it has no config.json")
    return found


def _nowhere(name: str, reason: str) -> PrumergeError:
    return PrumergeError(
        f"there is no model to load at {shown(name)}: it must be 'tiny', a folder with a config.json, or a "
        f"Hugging Face id that can be reached ({reason})"
    )
