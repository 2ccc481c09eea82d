"""One question about a picture or a clip, answered and timed stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from prumerge.generate.stopwatch import Stopwatch
from prumerge.layers.pruning import average_tokens, pruning
from prumerge.loading.prompts import prepare
from prumerge.models import answers_apart, device_of, within_call
from prumerge.pipeline.options import Options
from prumerge.pipeline.prompt import Prompt
from prumerge.pipeline.reduce import Pipeline
from prumerge.pipeline.splice import Columns
from prumerge.reducer import Reducer


@dataclass(frozen=True)
class Answer:
    """What the model said, how many tokens it read, and how long each stage took."""

    method: str
    """The reducer's spec; "untouched" for the model as Transformers runs it."""
    answer: str
    visual_tokens: float
    """That the language model read; on average over its layers where a method prunes between them."""
    prompt_tokens: int
    """That the language model was handed, visual ones included."""
    answer_tokens: int
    encode_ms: float
    """Vision tower and projector."""
    reduce_ms: float
    """Selection and merging, and shortening the prompt."""
    prefill_ms: float
    """Until the first token of the answer."""
    decode_ms: float
    """The other tokens of the answer."""


@torch.inference_mode()
def answer(
    model: Any,
    processor: Any,
    media: Image.Image | Sequence[Image.Image],
    question: str,
    reducer: str | Reducer | None = None,
    options: Options | None = None,
    *,
    max_new_tokens: int = 64,
    **changes: Any,
) -> Answer:
    """Answer greedily; without a reducer the model is left untouched, its own encoder included.

    `media` is a picture, or the frames of a clip. The fields of `Options` are given by name, or as `options`;
    frames are a clip (`clip`) unless they say otherwise.

    Raises PrumergeError as `reduce` and `attach` do.
    """
    together = not isinstance(media, Image.Image)
    options = (options or Options(clip=together)).but(**changes)
    prompt = Prompt.read(model, prepare(processor, media, question).to(device_of(model)))
    watch = Stopwatch(device_of(model))
    if reducer is None:
        layers, columns = None, Columns()
        shorter = _untouched(prompt)
        encode_ms, reduce_ms = watch.lap(), 0.0
    else:
        pipeline = Pipeline(reducer, options)
        layers = pipeline.placed.layers
        pictures = pipeline.encode(prompt)
        encode_ms = watch.lap()
        decisions = pipeline.decide(pictures)
        reduce_ms = watch.lap()
        shorter = pipeline.splice(prompt, decisions, pipeline.project(prompt, decisions))
        encode_ms += watch.lap()  # nearly all of it the projector
        columns = pipeline.columns(prompt, shorter, decisions)
    read = shorter["input_ids"].shape[1]
    written = int(prompt.image.sum())
    watch.lap()
    with pruning(prompt.model, layers, *columns) as inside:
        generated = model.generate(**shorter, max_new_tokens=max_new_tokens, do_sample=False, streamer=watch)
    handed = written - (prompt.image.shape[1] - read)  # placeholders that stayed
    new = said(prompt, shorter, generated)[0]
    first = watch.laps[1] if len(watch.laps) > 1 else watch.laps[-1]
    return Answer(
        method="untouched" if reducer is None else str(pipeline.method),
        answer=processor.decode(new, skip_special_tokens=True).strip(),
        visual_tokens=sum(average_tokens(inside, [handed])),
        prompt_tokens=read,
        answer_tokens=len(new),
        encode_ms=encode_ms,
        reduce_ms=reduce_ms,
        prefill_ms=first,
        decode_ms=watch.laps[-1] - first,
    )


def _untouched(prompt: Prompt) -> dict[str, Any]:
    """The whole prompt, its pictures encoded by the model itself."""
    family, base = prompt.family, prompt.base
    pixels = {name: value for name, value in prompt.inputs.items() if name in family.inputs}
    output = within_call(base, lambda: base.get_image_features(**pixels, return_dict=True))
    if family.hands_embeddings:
        rest = {name: value for name, value in prompt.inputs.items() if name not in family.inputs}
        family.deliver(base, rest, list(output.pooler_output), "image")
        return rest
    rest = {name: value for name, value in prompt.inputs.items() if not name.startswith("pixel_")}
    return {**rest, "mm_encoder_outputs": {"image": output}}


def said(prompt: Prompt, shorter: Mapping[str, Any], generated: Int[Tensor, "B T"]) -> Int[Tensor, "B _"]:
    """The new tokens of what `generate` returned: all that follows the prompt, or, of encoder-decoder
    language models, the token that decoding starts with."""
    start = 1 if answers_apart(prompt.model.config) else shorter["input_ids"].shape[1]
    return generated[:, start:]


def ended(
    answers: Sequence[Sequence[int]], limits: Sequence[int], model: Any
) -> list[tuple[list[int], bool]]:
    """The tokens of each answer without what ends it and pads it, as many as its limit at most, and whether
    it was cut."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    places = [next((place for place, one in enumerate(ids) if one in ends), len(ids)) for ids in answers]
    rows = zip(answers, places, limits, strict=True)
    return [(list(ids[: min(place, limit)]), place >= limit) for ids, place, limit in rows]
