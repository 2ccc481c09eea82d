"""What commands do with a model: load it, show it something, ask it, look at what a method keeps."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prumerge.cli.output import need, note
from prumerge.errors import PrumergeError, short, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from prumerge.generate.answer import Answer
    from prumerge.pipeline.options import Options
    from prumerge.reducer import LayerReducer, Reducer
    from prumerge.tokens import Reduction, VisualTokens


def open_model(name: str, device: str, device_map: str | None = None) -> tuple[Any, Any]:
    """A model and its processor, on a device or spread over all of them; PrumergeError if there is no such
    device. Of several processes on a machine each takes its own GPU."""
    from prumerge.loading.devices import chosen
    from prumerge.loading.load import load

    if device_map is not None:
        if device != "auto":
            raise PrumergeError(f"--device-map says where the model goes; leave --device {device} out")
        if device_map not in DEVICE_MAPS:
            raise PrumergeError(unknown("device map", device_map, DEVICE_MAPS))
        need("accelerate", "train")
        return _noted(*load(name, device_map=device_map))
    where = chosen(device)
    model, processor = _noted(*load(name))
    return model.to(where), processor


DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""How Accelerate spreads a model."""


def _noted(model: Any, processor: Any) -> tuple[Any, Any]:
    if model.adapted_to:
        note(f"this model was adapted to {model.adapted_to}")
    return model, processor


def show_media(path: Path, frames: int | None) -> Image | list[Image]:
    """A picture, or the frames of a clip; PrumergeError if frames are asked of a picture."""
    from prumerge.loading.clips import FRAMES
    from prumerge.loading.media import open_media

    found = open_media(path, frames or FRAMES)
    if frames is not None and not isinstance(found, list):
        raise PrumergeError(f"{short(str(path))!r} is one picture, which has no frames; leave --frames out")
    return found


def ask(
    model: Any,
    processor: Any,
    media: Image | Sequence[Image],
    question: str,
    method: Reducer | None,
    options: Options,
    max_new_tokens: int = 64,
) -> Answer:
    """One question, answered; without a method by the untouched model."""
    from prumerge.generate.answer import answer

    together = options.but(clip=isinstance(media, list))
    return answer(model, processor, media, question, method, together, max_new_tokens=max_new_tokens)


def look(
    model: Any,
    processor: Any,
    media: Image | Sequence[Image],
    method: Reducer,
    question: str = "",
    options: Options | None = None,
) -> tuple[VisualTokens, Reduction]:
    """The visual tokens of a picture or clip, and what becomes of its patches until the last layer reads."""
    import torch

    from prumerge.compose import Chain
    from prumerge.loading.prompts import prepare
    from prumerge.pipeline.options import Options
    from prumerge.pipeline.reduce import select
    from prumerge.spec import make

    options = options or Options()
    *parts, last = method.parts
    inside = last.place == "language model"
    before = method if not inside else Chain(chain=tuple(parts)) if parts else make("none")
    inputs = prepare(processor, media, question).to(model.device)
    with torch.inference_mode():
        together = options.but(clip=isinstance(media, list))
        tokens, reduction = select(model, inputs, before, together)[0]
    if inside:
        stages: list[Reduction] = []
        watched = _watched(last, stages)
        chain = Chain(chain=(*parts, watched)) if parts else watched
        ask(model, processor, media, question, chain, options, max_new_tokens=1)
        if not stages:
            raise PrumergeError(f"{method} does not say what it keeps; ask it by `prumerge answer`")
        for stage in stages:
            reduction = stage.after(reduction, len(tokens), tokens.class_tokens)
    return tokens, tokens.whole(reduction)


def _watched(method: Any, stages: list[Reduction]) -> LayerReducer:
    """The same method, whose decisions at its stages are noted."""
    kind: Any = type(method)

    class Watched(kind):
        def __call__(self, tokens: VisualTokens) -> Reduction:
            reduction = super().__call__(tokens)
            if self.positions == "original":  # the order in which they are read on
                reduction = reduction.rows(reduction.index.argsort(stable=True))
            stages.append(reduction)
            return reduction

    Watched.__module__, Watched.__qualname__ = kind.__module__, kind.__qualname__
    return Watched(**{own.name: getattr(method, own.name) for own in fields(method)})


def tokens_left(count: float, method: Reducer | None, available: int) -> str:
    """A number of visual tokens; where a method makes more than its `keep`, such as PruMerge one for all the
    rest, with what is beside `keep`."""
    last = method.parts[-1] if method else None
    if last is None or last.keep is None or "before" not in last.place:
        return f"{count:g}"
    keep = last.count(available)
    return f"{count:g} (keep {keep} + {count - keep:g})" if 0 < count - keep < available else f"{count:g}"
