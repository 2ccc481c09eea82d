"""The forms that rows of training data come in, read as one: Transformers' messages, and their pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prumerge.errors import PrumergeError, short
from prumerge.train.media import Clip, Picture, medium

Message = dict[str, Any]
"""{"role": ..., "content": [{"type": "image"} or {"type": "text", "text": ...}, ...]}"""

_FORMS = "conversations, messages, prompt and completion, or question and answer"
_MEDIA = ("image", "images", "video", "videos")
_ROLES = {role: role for role in ("system", "user", "assistant")} | {"human": "user", "gpt": "assistant"}
_MARK = re.compile("<(image|video)>")
_NAMES = {"image": "picture", "video": "clip"}


@dataclass
class _Mark:
    """The place of a picture or clip in a turn: its own, or the next one of its row."""

    kind: str  # "image" | "video"
    own: Picture | Clip | None = None


_Part = str | _Mark


@dataclass
class _Turn:
    role: str
    parts: list[_Part]
    in_parts: bool = False  # the row writes parts, each with its type, and not one text


@dataclass(frozen=True)
class _Reader:
    folder: str
    frames: int

    def medium(self, value: Any, kind: str) -> Picture | Clip:
        return medium(value, self.folder, clip=kind == "video", frames=self.frames)

    def media(self, raw: Mapping[str, Any], kind: str) -> list[Picture | Clip]:
        """What a row has of one kind, under either of its keys."""
        found: list[Any] = []
        for value in (raw.get(kind), raw.get(f"{kind}s")):
            if isinstance(value, list | tuple):
                found.extend(value)
            elif value is not None and value != "":
                found.append(value)
        return [self.medium(value, kind) for value in found]

    def turn(self, role: Any, content: Any) -> _Turn:
        if not isinstance(role, str) or role not in _ROLES:
            raise PrumergeError(f"there is no role {short(repr(role), 30)}, only {', '.join(_ROLES)}")
        in_parts = isinstance(content, list | tuple)
        parts = [piece for part in content for piece in self.part(part)] if in_parts else _pieces(content)
        return _Turn(_ROLES[role], _trimmed(parts), in_parts)

    def part(self, part: Any) -> list[_Part]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            return _pieces(part.get("text"))
        if kind not in _NAMES:
            raise PrumergeError(
                f"a part of a message is of type text, image or video, not {short(repr(kind), 30)}"
            )
        own = next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None)
        return [_Mark(kind, None if own is None else self.medium(own, kind))]


def read_row(
    raw: Mapping[str, Any], folder: str, *, answers: bool, frames: int
) -> tuple[tuple[Message, ...], tuple[Picture | Clip, ...]]:
    """The messages of a row, and its pictures and clips in the order of their marks, none of them opened.

    Of several forms in a row the first of `_FORMS` is read. A text with one mark has it in front, as LLaVA
    was trained; several stay where they are. Texts are stripped. A row without text (`answers` is False) is
    one user turn of its pictures; paths are relative to `folder`; clips have `frames` frames.
    Raises PrumergeError, without the name of the row, for what cannot be trained on.
    """
    if not isinstance(raw, Mapping):
        raise PrumergeError(f"a row is a mapping of names to values, not {type(raw).__name__}")
    reader = _Reader(folder, frames)
    media = {kind: reader.media(raw, kind) for kind in _NAMES}
    turns = [reader.turn(role, content) for role, content in _turns(raw, answers)]
    turns = [turn for turn in turns if turn.parts or turn.role != "system"]
    if not answers and turns and turns[-1].role == "assistant" and not turns[-1].parts:
        turns.pop()  # an answer that is not there is not needed
    asked = [turn for turn in turns if turn.role == "user"]
    marks = [part for turn in turns for part in turn.parts if isinstance(part, _Mark)]
    if asked and not marks and raw.get("conversations") is None and not any(turn.in_parts for turn in asked):
        marks = [_Mark(kind) for kind in _NAMES for _ in media[kind]]
        asked[0].parts[:0] = marks
    _check_turns(turns, answers)
    return tuple(map(_message, turns)), _in_order(marks, media)


def _turns(raw: Mapping[str, Any], answers: bool) -> Iterator[tuple[Any, Any]]:
    """Role and content of each turn, as the row writes them."""
    if raw.get("conversations") is not None:
        yield from _dialogue(raw["conversations"], "conversations")
    elif raw.get("messages") is not None:
        yield from _dialogue(raw["messages"], "messages")
    elif raw.get("prompt") is not None:
        for key, role in (("prompt", "user"), ("completion", "assistant")):
            value = raw.get(key)
            if isinstance(value, str):
                yield role, value
            elif value is not None:
                yield from _dialogue(value, key)
    elif raw.get("question") is not None:
        yield "user", raw["question"]
        answer = _answer(raw)
        if answer is not None:
            yield "assistant", answer
    elif not answers and any(raw.get(key) for key in _MEDIA):
        yield "user", ""
    else:
        keys = ", ".join(map(str, raw)) or "no keys"
        raise PrumergeError(f"it has {short(keys)} where a row has {_FORMS}")


def _dialogue(turns: Any, key: str) -> Iterator[tuple[Any, Any]]:
    if not isinstance(turns, list | tuple):
        raise PrumergeError(f"{key} is a list of turns, not {type(turns).__name__}")
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise PrumergeError(f"a turn of {key} has a role and a text, and is not {type(turn).__name__}")
        yield turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))


def _answer(raw: Mapping[str, Any]) -> Any:
    """The answer; of several annotators' the one that most gave, and the first of these."""
    answer = raw.get("answer") if raw.get("answer") is not None else raw.get("answers")
    if not isinstance(answer, list | tuple):
        return answer
    given = [one.get("answer") if isinstance(one, Mapping) else one for one in answer]
    texts = Counter(one.strip() for one in given if isinstance(one, str) and one.strip())
    return texts.most_common(1)[0][0] if texts else None


def _pieces(text: Any) -> list[_Part]:
    """A text cut at its marks: one mark is in front, several are where they were."""
    if text is None:
        return []
    if not isinstance(text, str):
        raise PrumergeError(f"{short(repr(text), 30)} is {type(text).__name__} where a text belongs")
    texts = _MARK.split(text)  # text, kind, text, kind, text
    if len(texts) == 3:
        return [_Mark(texts[1]), (texts[0] + texts[2]).strip()]
    if len(texts) > 3:
        return [_Mark(one) if place % 2 else one.strip("\n") for place, one in enumerate(texts)]
    return [text]


def _trimmed(parts: list[_Part]) -> list[_Part]:
    """Without the space in front of a turn's first text and behind its last, and without empty texts."""
    parts = [part for part in parts if isinstance(part, _Mark) or part.strip()]
    texts = [place for place, part in enumerate(parts) if isinstance(part, str)]
    if texts:
        first, last = texts[0], texts[-1]
        parts[first] = str(parts[first]).lstrip()
        parts[last] = str(parts[last]).rstrip()
    return parts


def _check_turns(turns: list[_Turn], answers: bool) -> None:
    """Raise PrumergeError unless user and assistant take turns, each with something to say."""
    system = int(bool(turns) and turns[0].role == "system")
    for number, turn in enumerate(turns):
        due = ("user", "assistant")[(number - system) % 2]
        if turn.role != due and number >= system:
            raise PrumergeError(f"turn {number + 1} is the {turn.role}'s where the {due}'s is due")
        if not turn.parts:
            raise PrumergeError(f"turn {number + 1}, the {turn.role}'s, is empty")
        if turn.role != "user" and any(isinstance(part, _Mark) for part in turn.parts):
            raise PrumergeError(
                f"turn {number + 1} shows a picture, which the {turn.role} cannot, only the user"
            )
    if len(turns) == system:
        raise PrumergeError("nobody asks anything: it has no user's turn")
    if answers and turns[-1].role == "user":
        raise PrumergeError("it ends without an answer")


def _in_order(marks: list[_Mark], media: Mapping[str, list[Picture | Clip]]) -> tuple[Picture | Clip, ...]:
    """What each mark stands for. In a row that has clips only, <image> stands for them as well."""
    open_marks = [mark for mark in marks if mark.own is None]
    clips_only = media["video"] and not media["image"]
    kinds = ["video" if clips_only else mark.kind for mark in open_marks]
    for kind, name in _NAMES.items():
        there, wanted = len(media[kind]), kinds.count(kind)
        if there != wanted:
            seen = sorted({mark.kind for mark in open_marks}) if clips_only and open_marks else [kind]
            raise PrumergeError(
                f"{there} {name}{'' if there == 1 else 's'} and {wanted} "
                + " or ".join(f"<{one}>" for one in seen)
            )
    rest = {kind: iter(found) for kind, found in media.items()}
    kinds_left = iter(kinds)
    return tuple(mark.own or next(rest[next(kinds_left)]) for mark in marks)


def _message(turn: _Turn) -> Message:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in turn.parts
    ]
    return {"role": turn.role, "content": content}
