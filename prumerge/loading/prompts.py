"""Questions about pictures as a model reads them: the prompt's text, and the inputs made of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL import Image
from transformers import BatchFeature

from prumerge.errors import PrumergeError
from prumerge.loading.images import as_rgb
from prumerge.loading.paths import first_line

# Attributes of processors and tokenizers that hold a word which stands for a picture or a part of one.
_PLACEHOLDER = re.compile(r"(.*(image|video|vision|audio).*|boi|eoi)_token")
_SEES_ONLY = PrumergeError("this model answers about pictures only; show it one")


def prepare(processor: Any, media: Image.Image | Sequence[Image.Image] | None, question: str) -> BatchFeature:
    """Inputs for one question about a picture, about the frames of a clip one after the other, or (None)
    about nothing that is seen.

    Raises PrumergeError for a clip without frames, and for what `prepare_batch` refuses.
    """
    pictures = [] if media is None else [media] if isinstance(media, Image.Image) else list(media)
    if media is not None and not pictures:
        raise PrumergeError("the clip has no frames; give it at least one")
    return prepare_batch(processor, [pictures], [question])


def prepare_batch(
    processor: Any, media: Sequence[Sequence[Image.Image]], questions: Sequence[str]
) -> BatchFeature:
    """Inputs for several questions, each about its own pictures (any number of them, none included), as one
    batch that is padded on the left.

    Pictures may be of any mode. The inputs are on the CPU, and hold no labels.
    Raises PrumergeError for what is no picture or no text, a question that holds a word which stands for
    pictures, and whatever the processor refuses.
    """
    if isinstance(questions, str) or len(media) != len(questions):
        raise PrumergeError(
            f"each question needs a list of its pictures: there are {len(media)} lists and "
            f"{1 if isinstance(questions, str) else len(questions)} questions"
        )
    if not questions:
        raise PrumergeError("there is no question to prepare")
    pictures = [[as_rgb(picture) for picture in row] for row in media]
    rows = zip(questions, pictures, strict=True)
    prompts = [question_prompt(processor, question, len(shown)) for question, shown in rows]
    return inputs_of(processor, pictures, prompts)


def inputs_of(
    processor: Any,
    pictures: Sequence[Sequence[Image.Image]],
    texts: Sequence[str],
    *,
    side: Literal["left", "right"] = "left",
    instructions: Sequence[str] | None = None,
) -> BatchFeature:
    """Inputs for texts that stand as the model reads them, each about its own RGB pictures, as one batch that
    is padded on this side (where queries stand in front of the words, always on the left).

    `instructions` are what a Q-Former reads of each text: all of it by default. Raises PrumergeError for
    whatever the processor refuses.
    """
    if getattr(processor, "num_query_tokens", None):
        return _behind_queries(processor, pictures, texts, instructions or texts)
    bos = processor.tokenizer.bos_token
    written = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
    try:
        inputs = processor(
            images=pictures if any(pictures) else None,
            text=list(texts),
            padding=True,
            padding_side=side,
            return_tensors="pt",
            verbose=False,  # how long a prompt may be is said of the shortened one
            **written,
        )
    except ValueError as error:
        if not any(pictures):
            raise _SEES_ONLY from error
        raise PrumergeError(f"the model's processor refuses this: {first_line(error)}") from error
    inputs.pop("labels", None)
    return inputs


def question_prompt(processor: Any, question: str, pictures: int = 1) -> str:
    """The text of one question about some pictures.

    By the processor's chat template, or LLaVA 1.5's prompt where it has none; where a processor writes the
    placeholders of its queries itself, BLIP-2's. Raises PrumergeError for a question that holds a
    placeholder.
    """
    check_words(processor, question)
    content = [*[{"type": "image"}] * pictures, {"type": "text", "text": question}]
    return conversation(processor, [{"role": "user", "content": content}])


def check_words(processor: Any, text: str) -> None:
    """Raise PrumergeError for what is no text, and for text that holds a word which stands for pictures."""
    if not isinstance(text, str):
        raise PrumergeError(f"a question is text, not {type(text).__name__}")
    named = {**vars(processor), **processor.tokenizer.special_tokens_map}
    words = (str(word) for name, word in named.items() if word and _PLACEHOLDER.fullmatch(name))
    if taken := next((word for word in words if word in text), None):
        raise PrumergeError(
            f"the question holds {taken!r}, which this model reads as a picture; write it in other words"
        )


def conversation(
    processor: Any, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None
) -> str:
    """The text of a conversation in Transformers' form; where a question is last, or what a tool found, an
    answer is to follow. `tools` are for chat templates that write them.

    By the processor's chat template, or LLaVA 1.5's prompt where it has none; where a processor writes the
    placeholders of its queries itself, BLIP-2's.
    """
    if processor.chat_template and not getattr(processor, "num_query_tokens", None):
        asks = messages[-1]["role"] in ("user", "tool")
        named = {"tools": list(tools)} if tools else {}
        text: str = processor.apply_chat_template(list(messages), add_generation_prompt=asks, **named)
        return text
    return "".join(_turn(processor, message) for message in messages)


def _turn(processor: Any, message: dict[str, Any]) -> str:
    """One turn of a model without a chat template."""
    parts = [part["text"] for part in message["content"] if part["type"] == "text"]
    pictures, text = len(message["content"]) - len(parts), " ".join(parts)
    if message["role"] == "assistant":
        return f" {text}"
    if message["role"] == "system":
        return f"{text} "
    if getattr(processor, "num_query_tokens", None):
        return f"Question: {text} Answer:"
    return "USER: " + "<image>\n" * pictures + f"{text} ASSISTANT:"


def _behind_queries(
    processor: Any,
    pictures: Sequence[Sequence[Image.Image]],
    prompts: Sequence[str],
    instructions: Sequence[str],
) -> BatchFeature:
    """As the processors of BLIP-2 and InstructBLIP lay out one picture a question, for any number of them:
    the placeholders of all queries, then the prompt; InstructBLIP's Q-Former reads the instruction for each
    picture."""
    options = {"padding": True, "return_tensors": "pt", "return_token_type_ids": False, "verbose": False}
    counts = torch.tensor([len(row) for row in pictures])
    if not counts.any():
        raise _SEES_ONLY
    queries = counts * processor.num_query_tokens
    words = processor.tokenizer(list(prompts), padding_side="left", **options)
    place = torch.arange(int(queries.max()))
    shown = place >= len(place) - queries[:, None]
    placeholder = processor.tokenizer.convert_tokens_to_ids(str(processor.image_token))
    padding = processor.tokenizer.pad_token_id or 0
    front = torch.where(shown, placeholder, padding)
    inputs = {
        "input_ids": torch.cat([front, words["input_ids"]], dim=1),
        "attention_mask": torch.cat([shown.to(words["attention_mask"]), words["attention_mask"]], dim=1),
    }
    flat = [picture for row in pictures for picture in row]
    inputs |= processor.image_processor(flat, return_tensors="pt")
    if (reader := getattr(processor, "qformer_tokenizer", None)) is not None:
        # Its positions are counted from the left, so padding must be on the right.
        for name, values in reader(list(instructions), padding_side="right", **options).items():
            inputs[f"qformer_{name}"] = values.repeat_interleave(counts, dim=0)
    return BatchFeature(inputs)
