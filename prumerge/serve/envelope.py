"""The request in OpenAI's form, checked strictly; fields that are not known here go on as they came."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prumerge.errors import short
from prumerge.serve.limits import Limits
from prumerge.serve.refusal import Refusal

_STRICT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Text(BaseModel):
    """Words of a message."""

    model_config = _STRICT
    type: Literal["text"]
    text: str


class Url(BaseModel):
    """Where a picture is: data:image/png;base64,..., or on the web."""

    model_config = _STRICT
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImageUrl(BaseModel):
    """A picture of a message."""

    model_config = _STRICT
    type: Literal["image_url"]
    image_url: Url


Part = Annotated[Text | ImageUrl, Field(discriminator="type")]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = _STRICT
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None

    def parts(self) -> list[Text | ImageUrl]:
        """Its content as parts."""
        if isinstance(self.content, list):
            return self.content
        return [] if self.content is None else [Text(type="text", text=self.content)]


class StreamOptions(BaseModel):
    """What a stream tells beside words."""

    model_config = _STRICT
    include_usage: bool | None = None


class Chat(BaseModel):
    """A request for an answer; `reducer` and `keep` are prumerge's own."""

    model_config = _STRICT
    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=16)]
        | None
    ) = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    reducer: Annotated[str, Field(max_length=200)] | None = None
    keep: Annotated[str, Field(max_length=20)] | int | float | None = None

    @property
    def more(self) -> dict[str, Any]:
        """Fields that are not known here, and say something."""
        return {name: value for name, value in (self.model_extra or {}).items() if value is not None}

    @property
    def stops(self) -> list[str]:
        """Texts before which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends in what was counted."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def tokens(self, most: int) -> int:
        """The longest answer that is wanted, and no more than `most`."""
        wanted = self.max_completion_tokens or self.max_tokens or most
        return min(wanted, most)


def read(raw: bytes | bytearray, limits: Limits) -> Chat:
    """The request that came; Refusal for what is none, or is larger than the limits."""
    try:
        chat = Chat.model_validate_json(raw)
    except ValidationError as error:
        raise _refused(error) from None
    if len(chat.messages) > limits.messages:
        raise Refusal(f"there are {len(chat.messages)} messages; send at most {limits.messages}")
    parts = [part for message in chat.messages for part in message.parts()]
    pictures = sum(isinstance(part, ImageUrl) for part in parts)
    if pictures > limits.pictures:
        raise Refusal(f"there are {pictures} pictures; send at most {limits.pictures}")
    characters = sum(len(part.text) for part in parts if isinstance(part, Text))
    if characters > limits.characters:
        raise Refusal(f"there are {characters} characters of text; send at most {limits.characters}")
    return chat


def _refused(error: ValidationError) -> Refusal:
    """The first thing that is wrong, without repeating what was sent."""
    found = error.errors(include_input=False, include_url=False)
    first = max(found, key=lambda one: len(one["loc"]))  # of a field with two forms, that which was meant
    places = [str(part) for part in first["loc"]]
    where = ".".join(part for part in places if part not in ("str", "text", "image_url") and "[" not in part)
    where = where or "the request"
    if first["type"] == "union_tag_invalid":
        tag = short(str(first["ctx"]["tag"]))
        return Refusal(
            f"{where}: a part is text or image_url, not {tag}; pictures come as image_url, "
            "and no tensors are taken",
            param=short(where),
            code="invalid_value",
        )
    said = first["msg"][0].lower() + first["msg"][1:]
    return Refusal(f"{short(where)}: {short(said, 200)}", param=short(where), code="invalid_value")
