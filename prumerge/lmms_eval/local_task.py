"""A task of lmms-eval on data that lies on a disk: its own file, with another place to read from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from prumerge.errors import MissingPackage, PrumergeError, short, unknown

PREFIX = "disk_"
"""In front of the name: of two tasks with one name lmms-eval takes its own."""
_KINDS = {"parquet": ("parquet",), "json": ("jsonl", "json"), "csv": ("csv",), "arrow": ("arrow",)}
"""Readers of the datasets package, and what their files end in."""


class _Plain(yaml.SafeLoader):
    """Reads a task's file, without the functions that it names."""


_Plain.add_multi_constructor("!", lambda loader, tag, node: str(node.value))


@dataclass(frozen=True)
class LocalTask:
    """What is written for lmms-eval."""

    name: str
    stock: Path
    """The file of lmms-eval's own task."""
    reads: dict[str, Any]
    """What is put in the place of where that reads from."""

    def text(self) -> str:
        """As YAML, which lmms-eval reads where the functions of its own file are, too."""
        return yaml.safe_dump(
            {"include": str(self.stock), "task": self.name, **self.reads}, sort_keys=False, allow_unicode=True
        )


def local_task(name: str, data: Path, stock: Path | None = None) -> LocalTask:
    """The task `name` of lmms-eval, reading from `data`: a folder of parquet, json, jsonl, csv or arrow files
    as they lie in a repository of the Hugging Face hub, one such file, or a folder of `save_to_disk`.

    `stock` is the folder of lmms-eval's tasks; None: that of the package which is installed.

    Raises PrumergeError for a name that is none of a task, a group of tasks, and a place without what the
    task reads.
    """
    found = _stock_file(name, stock or _tasks_of_package())
    if not data.exists():
        raise PrumergeError(f"there is no {short(str(data))!r} for {name} to read; give another --data")
    settings = _settings(found)
    return LocalTask(PREFIX + name, found, _reads(name, settings, data.resolve()))


def _tasks_of_package() -> Path:
    spec = find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage(
            "this needs lmms_eval; install it with: pip install 'prumerge[lmms-eval]' (see docs/lmms-eval.md)"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


def _stock_file(name: str, tasks: Path) -> Path:
    """The file that describes a task."""
    files = sorted(one for one in tasks.rglob("*.yaml") if one.is_file())
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    names = {
        said[1]: file
        for file, text in texts.items()
        if (said := re.search(r"^task:[ \t]*[\"']?([\w./+-]+)[\"']?[ \t]*(?:#.*)?$", text, re.MULTILINE))
    }
    if name in names:
        return names[name]
    for file, text in texts.items():
        if re.search(rf"^group:[ \t]*[\"']?{re.escape(name)}[\"']?[ \t]*$", text, re.MULTILINE):
            members = _load(file).get("task") or []
            told = [one if isinstance(one, str) else str(one.get("task")) for one in members]
            raise PrumergeError(
                f"{name} is a group of lmms-eval's tasks; name one of them: {', '.join(told)}"
            )
    near = [one for one in names if one.startswith(name[:3])]
    raise PrumergeError(unknown("task of lmms-eval", name, sorted(near or names)[:20]))


def _load(file: Path) -> dict[str, Any]:
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), _Plain)
    except yaml.YAMLError as error:
        raise PrumergeError(f"{file} cannot be read ({' '.join(str(error).split())})") from None
    return found if isinstance(found, dict) else {}


def _settings(file: Path) -> dict[str, Any]:
    """What a file says, on top of what it includes."""
    own = _load(file)
    included = own.pop("include", [])
    settings: dict[str, Any] = {}
    for name in reversed([included] if isinstance(included, str) else included):
        path = Path(name) if Path(name).is_file() else file.parent / name
        settings |= _settings(path)
    return settings | own


def _reads(name: str, settings: dict[str, Any], data: Path) -> dict[str, Any]:
    """The keys of a task that say where it reads, for what lies there."""
    splits = [str(settings[key]) for key in ("test_split", "validation_split") if settings.get(key)]
    others = [str(settings[key]) for key in ("training_split", "fewshot_split") if settings.get(key)]
    if not splits:
        raise PrumergeError(f"{name} of lmms-eval names no split that it asks about; take another task")
    if (data / "dataset_dict.json").is_file():
        return {
            "dataset_path": str(data),
            "dataset_name": None,
            "dataset_kwargs": {"load_from_disk": True},
        }
    configuration = settings.get("dataset_name")
    for kind, endings in _KINDS.items():
        files = {
            split: next(_files(data, str(configuration or ""), split, endings), None)
            for split in dict.fromkeys([*splits, *others])
        }
        if files[splits[0]] is not None:
            return {
                "dataset_path": kind,
                "dataset_name": None,
                "dataset_kwargs": {"data_files": {split: one for split, one in files.items() if one}},
            }
    wanted = f"{configuration}/{splits[0]}" if configuration else splits[0]
    raise PrumergeError(
        f"{short(str(data))!r} holds no files of the split {wanted} that {name} asks about, such as "
        f"{splits[0]}-00000-of-00001.parquet; it is published as {settings.get('dataset_path')} of Hugging "
        "Face"
    )


def _files(data: Path, configuration: str, split: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Patterns of a split's files that lie there, the nearest first."""
    for ending in endings:
        if data.is_file():
            if data.suffix == f".{ending}":
                yield str(data)
            continue
        folders = [data / configuration, data / "data", data] if configuration else [data / "data", data]
        for folder in folders:
            for pattern in (f"{split}-*.{ending}", f"{split}.{ending}"):
                if any(folder.glob(pattern)):
                    yield str(folder / pattern)
