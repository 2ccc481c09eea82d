"""Answers in OpenAI's form."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from prumerge.serve.reduced import Reduced, Took


def visual(pictures: Sequence[Reduced], kept: float | None = None) -> dict[str, Any]:
    """Visual tokens before and after reduction, newlines between them included, and the milliseconds of both
    stages before the language model; `kept`, where its layers prune as well, is their average over them."""
    if kept is None:
        kept = sum(len(one.left.standing) for one in pictures)
    return {
        "visual_tokens": sum(one.left.placeholders for one in pictures),
        "visual_tokens_kept": int(kept) if kept == int(kept) else round(kept, 2),
        **milliseconds(pictures),
    }


def milliseconds(pictures: Sequence[Reduced]) -> dict[str, float]:
    """Of vision tower and projector, and of the methods, for what is left of some pictures."""
    took = Took.together(pictures)
    return {"encode_ms": round(took.encode, 2), "reduce_ms": round(took.reduce, 2)}


def usage(prompt: int, answer: int, seen: dict[str, Any]) -> dict[str, Any]:
    """What was counted: tokens of prompt and answer, and what `visual` gives."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": seen,
    }


class Chunks:
    """The chunks of one streamed answer."""

    def __init__(self) -> None:
        self._head = {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
        }

    def words(self, content: str, *, first: bool = False, reason: str | None = None) -> dict[str, Any]:
        """Some words; the first chunk says whose they are, the last one why they end."""
        delta = {**({"role": "assistant"} if first else {}), "content": content}
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}])

    def counted(self, usage: dict[str, Any]) -> dict[str, Any]:
        """What was counted."""
        return {**self._chunk([]), "usage": usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "choices": choices}


def joined(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A whole answer from the chunks of one that was streamed."""
    parts = [one["choices"][0] for one in chunks if one["choices"]]
    content = "".join(part["delta"]["content"] for part in parts)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "logprobs": None,
        "finish_reason": parts[-1]["finish_reason"],
    }
    last = chunks[-1]
    return {
        "id": last["id"],
        "object": "chat.completion",
        "created": last["created"],
        "choices": [choice],
        "usage": last["usage"],
    }
