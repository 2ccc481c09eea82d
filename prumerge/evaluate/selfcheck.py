"""What to look at before the table of a checkpoint is believed: is the model left alone where nothing is cut,
and does its attention look as PruMerge expects?"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from PIL.Image import Image

from prumerge import ops
from prumerge.loading.fingerprint import fingerprint
from prumerge.loading.prompts import prepare_batch
from prumerge.models import device_of
from prumerge.pipeline.options import DEFAULT, Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.tokens import VisualTokens

PICTURES = 8
"""That are looked at, at most."""
_PACKAGES = ("prumerge", "torch", "transformers")
_SIZES = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_TOWER = (*_SIZES[:4], "image_size", "patch_size")


@dataclass(frozen=True)
class Span:
    """The mean over pictures, and the least and the most."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Span:
        return cls(fmean(values), min(values), max(values))


@dataclass(frozen=True)
class SelfCheck:
    """What was seen on a few pictures."""

    pictures: int
    tokens: Span
    """Visual tokens of a picture."""
    identical: bool
    """Whether `none` gives the logits of the untouched model, bit for bit."""
    difference: float
    """The largest difference between them; 0 where they are identical."""
    attention: str
    """Whose: "class token", or "all patches" in towers without one."""
    outliers: Span
    """Percent of the tokens whose attention is above the fence, Q3 + 1.5 IQR, which PruMerge keeps; the paper
    saw 5.5. All heads as one, as in its code."""
    outliers_split: Span
    """The same with the attention that the tower computes, averaged over heads."""
    holds_half: Span
    """Percent of the tokens that hold half of the attention: the smaller, the sparser."""


@torch.inference_mode()
def self_check(
    model: Any,
    processor: Any,
    images: Sequence[Image],
    question: str,
    options: Options = DEFAULT,
) -> SelfCheck:
    """Look at some pictures, at most 8, each with one question."""
    images = list(images)[:PICTURES]
    difference, seen = 0.0, []
    identical = True
    for image in images:
        inputs = prepare_batch(processor, [[image]], [question]).to(device_of(model))
        prompt = Prompt.read(model, inputs)
        pipeline = Pipeline("none", options)
        pictures = pipeline.encode(prompt)
        decisions = pipeline.decide(pictures)
        whole = pipeline.splice(prompt, decisions, pipeline.project(prompt, decisions))
        more = _decoding(model, inputs)
        ours, theirs = model(**whole, **more).logits[:, -1], model(**inputs, **more).logits[:, -1]
        identical &= torch.equal(ours, theirs)
        difference = max(difference, float((ours.float() - theirs.float()).abs().max()))
        seen.append(VisualTokens.from_frames(pictures) if len(pictures) > 1 else pictures[0])
    joint, split = _attention(seen, split_heads=False), _attention(seen, split_heads=True)
    return SelfCheck(
        pictures=len(images),
        tokens=Span.of([tokens.patches for tokens in seen]),
        identical=identical,
        difference=difference,
        attention="class token" if seen[0].class_key is not None else "all patches",
        outliers=Span.of(list(map(_outliers, joint))),
        outliers_split=Span.of(list(map(_outliers, split))),
        holds_half=Span.of(list(map(_half, split))),
    )


def _decoding(model: Any, inputs: Any) -> dict[str, Any]:
    """What the decoder of an encoder-decoder language model starts with."""
    start = getattr(model.config.get_text_config(), "decoder_start_token_id", None)
    if start is None or not model.config.get_text_config().is_encoder_decoder:
        return {}
    return {"decoder_input_ids": torch.full((1, 1), start, device=inputs["input_ids"].device)}


def _attention(seen: Sequence[VisualTokens], *, split_heads: bool) -> list[torch.Tensor]:
    return [tokens.attention(split_heads=split_heads).cpu() for tokens in seen]


def _outliers(attention: torch.Tensor) -> float:
    return 100 * float(ops.outliers(attention).float().mean())


def _half(attention: torch.Tensor) -> float:
    share = attention.sort(descending=True).values.cumsum(0) / attention.sum()
    return 100 * (int((share < 0.5).sum()) + 1) / len(attention)


def described(model: Any) -> dict[str, Any]:
    """Sizes of a checkpoint, the machine it is on, and versions."""
    config = model.config
    tower = getattr(config, "vision_config", None)
    device = device_of(model)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "weights": fingerprint(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "family": config.model_type,
        "language_model": _sizes(config.get_text_config(), _SIZES),
        "vision_tower": _sizes(tower, _TOWER),
        "machine": {"device": gpu or device.type, "processor": platform.machine()},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def _sizes(config: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if isinstance(value := getattr(config, name, None), int | str)}
