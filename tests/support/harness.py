"""Of lmms-eval what `prumerge.lmms_eval.chat` touches, for tests where it is not installed."""

import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass
class GenerationResult:
    text: str
    token_counts: TokenCounts | None = None


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None


class Model:
    """Its class of models, for one process."""

    def __init__(self):
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    @property
    def rank(self):
        return self._rank


@dataclass
class Harness:
    """What a model told it, and how it asks."""

    metrics: list[dict[str, Any]] = field(default_factory=list)

    def requests(self, model, documents, generation, task="pope"):
        """Requests about these documents, which are messages already."""
        model.task_dict = {task: {"test": documents}}
        return [
            SimpleNamespace(args=("", lambda document: document, generation, place, task, "test"))
            for place in range(len(documents))
        ]


def _main():
    """Its command line: whatever an evaluation raises is printed, and forgotten."""
    theirs = sys.modules["lmms_eval.__main__"]
    args = SimpleNamespace(given=sys.argv, tasks=sys.argv[sys.argv.index("--tasks") + 1])
    try:
        theirs.cli_evaluate_single(args)
    except Exception as error:
        print(f"Error during evaluation: {error}")


def install(monkeypatch):
    """Put it in the place of lmms-eval, whether that is installed or not."""
    harness = Harness()
    parts: dict[str, dict[str, Any]] = {
        "": {},
        ".api": {},
        ".api.instance": {"GenerationResult": GenerationResult, "TokenCounts": TokenCounts},
        ".api.model": {"lmms": Model},
        ".__main__": {"cli_evaluate_single": None},
        ".cli": {},
        ".cli.dispatch": {"main": _main},
        ".models": {},
        ".models.registry_v2": {"ModelManifest": ModelManifest},
        ".models.model_utils": {},
        ".models.model_utils.gen_metrics": {"log_metrics": lambda **told: harness.metrics.append(told)},
    }
    for name, held in parts.items():
        module = ModuleType(f"lmms_eval{name}")
        vars(module).update(held)
        module.__spec__ = ModuleSpec(module.__name__, None, is_package=True)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "prumerge.lmms_eval.chat", raising=False)
    return harness


def question(text, *pictures):
    """Messages as lmms-eval makes them of a picture and a question."""
    shown = [{"type": "image", "url": picture} for picture in pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]
