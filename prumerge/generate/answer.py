"""One question about a picture or a clip, answered and timed stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from prumerge.compose import Placed
from prumerge.generate.stopwatch import Stopwatch
from prumerge.layers.pruning import average_tokens, pruning
from prumerge.loading.load import prepare
from prumerge.models import family_of, unwrap
from prumerge.pipeline.splice import Relevance, column_sizes, encode, splice
from prumerge.reducer import Reducer
from prumerge.spec import make


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
    image: Image.Image | Sequence[Image.Image],
    question: str,
    reducer: Reducer | None = None,
    *,
    max_new_tokens: int = 64,
    relevance: Relevance | None = None,
    size_bias: bool = False,
) -> Answer:
    """Answer greedily; without a reducer the model is left untouched, its own encoder included.

    Several pictures are the frames of a clip. `relevance` is that of `reduce`, `size_bias` that of `attach`.
    """
    inputs = prepare(processor, image, question).to(model.device)
    watch, sizes = Stopwatch(model.device), None
    if reducer is None:
        prompt = _encoded(model, inputs)
        encode_ms, reduce_ms = watch.lap(), 0.0
    else:
        clip = not isinstance(image, Image.Image)
        tokens = encode(model, inputs, reducer, clip=clip, relevance=relevance)
        encode_ms = watch.lap()
        method = Placed.of(reducer).before or make("none")
        chosen = [(one, method(one)) for one in tokens]
        reduce_ms = watch.lap()
        prompt = splice(model, inputs, chosen)
        encode_ms += watch.lap()  # nearly all of it the projector
        sizes = column_sizes(model, prompt, chosen) if size_bias else None
    ids = prompt["input_ids"]
    watch.lap()
    with pruning(model, reducer or make("none"), sizes) as inside:
        generated = model.generate(**prompt, max_new_tokens=max_new_tokens, do_sample=False, streamer=watch)
    written = int((inputs["input_ids"] == unwrap(model).config.image_token_id).sum())
    handed = written - (inputs["input_ids"].shape[1] - ids.shape[1])  # placeholders that stayed
    new = generated[0, ids.shape[1] :]
    first = watch.laps[1] if len(watch.laps) > 1 else watch.laps[-1]
    return Answer(
        method="untouched" if reducer is None else str(reducer),
        answer=processor.decode(new, skip_special_tokens=True).strip(),
        visual_tokens=sum(average_tokens(inside, [handed])),
        prompt_tokens=ids.shape[1],
        answer_tokens=len(new),
        encode_ms=encode_ms,
        reduce_ms=reduce_ms,
        prefill_ms=first,
        decode_ms=watch.laps[-1] - first,
    )


def _encoded(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The whole prompt, its pictures encoded by the model itself."""
    inner = unwrap(model)
    base, family = inner.base_model, family_of(inner.config.model_type)
    pixels = {name: value for name, value in inputs.items() if name in family.inputs}
    output = base.get_image_features(**pixels, return_dict=True)
    if family.hands_embeddings:
        prompt = {name: value for name, value in inputs.items() if name not in family.inputs}
        family.deliver(base, prompt, list(output.pooler_output), "image")
        return prompt
    prompt = {name: value for name, value in inputs.items() if not name.startswith("pixel_")}
    return {**prompt, "mm_encoder_outputs": {"image": output}}
