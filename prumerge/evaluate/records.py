"""One answer with its question, as it is kept and read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from operator import attrgetter
from typing import Any

from prumerge.errors import PrumergeError, short, unknown
from prumerge.evaluate.tasks import DRAWN, names
from prumerge.evaluate.tasks._task import Question


@dataclass(frozen=True)
class Record:
    """One answer."""

    task: str
    id: str
    picture: str
    method: str
    """The label under which it is reported, such as prumerge@36."""
    spec: str
    """The reducer that ran, such as prumerge:keep=35."""
    question: str
    gold: tuple[str, ...]
    prediction: str
    score: float
    split: str
    group: str
    options: int
    tokens_in: int
    tokens_kept: float
    """That the language model read; on average over its layers where a method prunes between them."""
    encode_ms: float
    """This and the other times: those of the batch, divided by its questions."""
    reduce_ms: float
    prefill_ms: float
    decode_ms: float
    answer_tokens: int = 0
    """That the language model wrote; 0 where an older version did not count them."""
    cut: bool = False
    """Whether it would have gone on after the most tokens that its task asks for."""
    divergence: float = 0.0
    """In nats, of its next tokens from the untouched model's, summed over those that are compared."""
    compared: int = 0
    """Tokens of the answer until the first that the untouched model does not say, that one included; 0 where
    an older version did not compare."""
    probability: float = 0.0
    """Of the whole answer, as the model that gave it sees it; 0 where an older version did not say."""

    @property
    def asked(self) -> Question:
        """The question that it answers."""
        return Question(
            task=self.task,
            id=self.id,
            picture=self.picture,
            text=self.question,
            gold=self.gold,
            split=self.split,
            group=self.group,
            options=self.options,
        )

    @property
    def place(self) -> tuple[str, str]:
        """Which question it is among those of all tasks."""
        return self.task, self.id

    @property
    def cluster(self) -> str:
        """Which picture it is among those of all tasks."""
        return self.picture if self.task in DRAWN else f"{self.task}/{self.picture}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What is never asked twice."""
        return self.method, self.task, self.id


def record_of(value: Any, line: bytes, place: str) -> Record:
    """The answer that a line holds as JSON, of older versions as well. PrumergeError, saying what is wrong
    with it, if it holds none."""
    again = "take the line out, or run evaluate anew"
    if not isinstance(value, dict):
        raise PrumergeError(f"{place}: {short(line.decode(errors='replace'), 30)!r} is no answer; {again}")
    value = _as_now(value)
    for name in (*_KINDS, *value):
        if name not in _KINDS:
            raise PrumergeError(f"{place}: {short(name)!r} is not known; {again}")
        if name not in value and name not in _DEFAULTS:
            raise PrumergeError(f"{place}: {short(name)!r} is missing; {again}")
        if name in value and not _fits(_KINDS[name], value[name]):
            raise PrumergeError(f"{place}: {name} cannot be {short(repr(value[name]), 30)}; {again}")
    if value["task"] not in names():
        raise PrumergeError(f"{place}: {unknown('task', value['task'], names())}")
    return Record(**{**value, "gold": tuple(value["gold"])})


_KINDS = {field.name: str(field.type) for field in fields(Record)}
_DEFAULTS = {field.name for field in fields(Record) if field.default is not MISSING}


def _fits(kind: str, value: Any) -> bool:
    if kind == "tuple[str, ...]":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    kinds: Any = {"str": str, "int": int, "float": (int, float), "bool": bool}[kind]
    return isinstance(value, kinds) and (kind == "bool" or not isinstance(value, bool))


def _as_now(value: dict[str, Any]) -> dict[str, Any]:
    """An answer of a version that had benchmarks, one right answer each, and numbers for pictures."""
    value = {{"benchmark": "task"}.get(name, name): held for name, held in value.items()}
    if isinstance(value.get("gold"), str):
        value["gold"] = [value["gold"]]
    if type(value.get("picture")) is int:
        value["picture"] = str(value["picture"])
    return value


def by_method(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by their method's label, in the order of first appearance, each sorted by question."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.method].append(record)
    return {label: sorted(rows, key=attrgetter("task", "id")) for label, rows in groups.items()}
