"""Prune and merge the visual tokens of vision-language models.

>>> import prumerge
>>> model, processor = prumerge.load("tiny")
>>> model.generate(**prumerge.reduce(model, inputs, "prumerge_plus"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prumerge.attachment.attach import attach
    from prumerge.catalogue import names
    from prumerge.drawing import show
    from prumerge.generate.guarded import Guard, guarded
    from prumerge.generate.lossless import lossless
    from prumerge.loading.clips import open_clip
    from prumerge.loading.images import open_image
    from prumerge.loading.load import load
    from prumerge.pipeline.reduce import reduce, select
    from prumerge.reducer import Reducer
    from prumerge.relevance import clip_relevance
    from prumerge.spec import make
    from prumerge.tokens import Reduction, VisualTokens

__version__ = "0.2.0"

# Imported when first used, so that the command line starts without torch.
_HOMES = {
    "Guard": "generate.guarded",
    "Reducer": "reducer",
    "Reduction": "tokens",
    "VisualTokens": "tokens",
    "attach": "attachment.attach",
    "clip_relevance": "relevance",
    "guarded": "generate.guarded",
    "load": "loading.load",
    "lossless": "generate.lossless",
    "make": "spec",
    "names": "catalogue",
    "open_clip": "loading.clips",
    "open_image": "loading.images",
    "reduce": "pipeline.reduce",
    "select": "pipeline.reduce",
    "show": "drawing",
}

__all__ = [
    "Guard",
    "Reducer",
    "Reduction",
    "VisualTokens",
    "attach",
    "clip_relevance",
    "guarded",
    "load",
    "lossless",
    "make",
    "names",
    "open_clip",
    "open_image",
    "reduce",
    "select",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prumerge' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"prumerge.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
