"""Whether an engine reads embeddings, and has the weights that they were made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from prumerge.errors import PrumergeError
from prumerge.serve.asked import Asked, asked
from prumerge.serve.envelope import Chat
from prumerge.serve.host import Host
from prumerge.serve.pictures import Picture
from prumerge.serve.refusal import Refusal

if TYPE_CHECKING:
    from prumerge.serve.vllm import Vllm

LIKELY = 5
"""Among so many of the engine's likeliest tokens this model's own must be: rounding may swap near ones."""


async def probe(engine: Vllm) -> None:
    """Ask one question of the engine and of this process; PrumergeError, saying what to do, where the engine
    refuses it, reads another number of tokens, or answers as another model would."""
    question = _question(engine)
    own, count = await engine.host.run(_likeliest, engine.host, question)
    try:
        found = await engine.whole(question)
    except Refusal as refusal:
        raise PrumergeError(
            f"the engine at {engine.upstream.url} takes no embeddings of this model ({refusal}); start vLLM "
            "with the folder that prumerge export-lm writes of it, --enable-prompt-embeds, and its Python "
            "front end"
        ) from refusal
    read = found["usage"]["prompt_tokens"]
    if read != count:
        raise PrumergeError(
            f"the engine at {engine.upstream.url} reads {read} tokens of a prompt of {count}, so it has "
            "another chat template; serve the folder that prumerge export-lm writes"
        )
    if f"token_id:{own}" not in _named(found):
        raise PrumergeError(
            f"the engine at {engine.upstream.url} answers as another model would; serve the folder that "
            "prumerge export-lm writes of this one"
        )


def _question(engine: Vllm) -> Asked:
    image = Image.radial_gradient("L").convert("RGB")
    content = [
        {"type": "image_url", "image_url": {"url": ""}},
        {"type": "text", "text": "what is there?"},
    ]
    chat = Chat.model_validate(
        {
            "model": "",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": LIKELY,
            "return_tokens_as_token_ids": True,
        }
    )
    pipeline = engine.allowed.pipeline(chat)
    return asked(engine.host, chat, [Picture(b"probe", image)], pipeline, 1)


def _likeliest(host: Host, question: Asked) -> tuple[int, int]:
    """The first token of this process's own answer, and how many its prompt has, in the model's thread."""
    images = [[one.image for one in question.pictures]]
    prompt = host.prompt(images, [question.text])
    shorter, _ = question.pipeline.reduce(prompt)
    mask = shorter["attention_mask"]
    logits = host.model(**shorter).logits[0, -1]
    return int(logits.argmax()), int(mask.sum())


def _named(found: dict[str, Any]) -> set[str]:
    """The likeliest tokens of an answer's first place, by id."""
    try:
        first = found["choices"][0]["logprobs"]["content"][0]
        return {one["token"] for one in (first, *first["top_logprobs"])}
    except (LookupError, TypeError):
        return set()
