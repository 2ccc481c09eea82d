"""From a request to a question that an engine can answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from prumerge.errors import PrumergeError
from prumerge.loading.paths import first_line
from prumerge.loading.prompts import check_words
from prumerge.pipeline.options import Options
from prumerge.pipeline.reduce import Pipeline
from prumerge.serve.envelope import Chat, ImageUrl, Message
from prumerge.serve.host import Host
from prumerge.serve.pictures import Picture
from prumerge.serve.refusal import Refusal
from prumerge.spec import make, with_keep

PARTS = 4
"""Methods in a chain that a client asks for."""
MARKER = "<prompt_embeds>"
"""The word that vLLM puts in the place of embeddings."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question with its pictures, and how it is to be answered."""

    chat: Chat
    """What was sent, without its messages."""

    text: str = field(repr=False)
    """The prompt as the model reads it, before its pictures are expanded."""

    pictures: Sequence[Picture]
    pipeline: Pipeline
    most: int
    """Tokens of the longest answer."""


@dataclass(frozen=True)
class Allowed:
    """Methods that clients may ask for, and the one that they get if they do not."""

    default: str
    names: frozenset[str]
    options: Options

    @classmethod
    def of(cls, default: str, names: Collection[str], options: Options) -> Allowed:
        """The default's own methods, and whole pictures, are always among them. Raises PrumergeError."""
        own = {str(part).partition(":")[0] for part in make(default).parts}
        for name in names:
            make(name)
        return cls(default, frozenset({"none", *own, *names}), options)

    def pipeline(self, chat: Chat) -> Pipeline:
        """The steps that a request asks for; Refusal where it may not."""
        spec = self.default if chat.reducer is None else chat.reducer
        if chat.reducer is not None:
            names = [part.partition(":")[0].partition("@")[0].strip() for part in spec.split("+")]
            if other := next((name for name in names if name not in self.names), None):
                raise Refusal(
                    f"the method {other[:40]!r} is not served here; take one of: "
                    f"{', '.join(sorted(self.names))}",
                    param="reducer",
                    code="invalid_value",
                )
            if len(names) > PARTS:
                raise Refusal(f"a chain has at most {PARTS} methods", param="reducer", code="invalid_value")
        if chat.keep is not None:
            spec = with_keep(spec, chat.keep)
        try:
            return Pipeline(spec, self.options)
        except PrumergeError as error:
            raise Refusal(str(error), param="reducer", code="invalid_value") from None


def asked(host: Host, chat: Chat, pictures: Sequence[Picture], pipeline: Pipeline, most: int) -> Asked:
    """The question of a request whose pictures, in its order, were opened.

    Raises PrumergeError for words that stand for pictures, and for a conversation without a question.
    """
    for message in chat.messages:
        for part in message.parts():
            if not isinstance(part, ImageUrl):
                check_words(host.processor, part.text)
                if MARKER in part.text:
                    raise Refusal(f"a message holds {MARKER!r}, which stands for a picture; leave it out")
    if chat.messages[-1].role not in ("user", "tool"):
        raise Refusal("the last message asks nothing; end in one of the user's", param="messages")
    try:
        text = host.text([_message(one) for one in chat.messages], chat.more.get("tools"))
    except (TemplateError, TypeError, ValueError) as error:  # templates have rules of their own
        raise Refusal(
            f"the model's chat template refuses these messages ({first_line(error)[:200]})", param="messages"
        ) from None
    rest = chat.model_copy(update={"messages": []})
    return Asked(rest, text, tuple(pictures), pipeline, chat.tokens(most))


def _message(message: Message) -> dict[str, Any]:
    """A message in Transformers' form."""
    content = [
        {"type": "image"} if isinstance(part, ImageUrl) else {"type": "text", "text": part.text}
        for part in message.parts()
    ]
    role = "system" if message.role == "developer" else message.role
    return {**(message.model_extra or {}), "role": role, "content": content}
