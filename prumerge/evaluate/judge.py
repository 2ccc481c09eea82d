"""A language model as judge of open answers, behind any server that speaks OpenAI's protocol.

The judge is asked what Video-ChatGPT's evaluation asks (https://arxiv.org/abs/2306.05424, section 4.2, which
MSVD-QA, MSRVTT-QA and ActivityNet-QA are reported by since): whether a predicted answer means the right one,
yes or no, and how well it does, 0 to 5. The words are this file's own.
"""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from prumerge.errors import PrumergeError, short

KEY = "PRUMERGE_JUDGE_KEY"
"""The environment variable that holds the server's key."""

SYSTEM = (
    "You compare a predicted answer to a question with the correct answer. The prediction is right if it "
    "means the same as the correct answer: synonyms, paraphrases and more words around it are fine, a "
    "contradiction or another thing is not."
)
PROMPT = """Question: {question}
Correct answer: {gold}
Predicted answer: {prediction}

Is the predicted answer right? Reply with one JSON object and nothing else, such as
{{"pred": "yes", "score": 4}}
where pred is yes or no, and score is a whole number from 0 (nothing in common) to 5 (the same meaning)."""

AT_ONCE = 8
"""Requests that wait for the server together, at most."""
SAMPLING = {"temperature": 0, "max_tokens": 2048}  # tokens at most: some judges think aloud first
_BUSY, _AWAY = 6, 3  # requests, to a server that is busy and to one that cannot be reached
_PATIENCE = 120  # seconds
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504)  # that a server says of itself for a while


@dataclass(frozen=True)
class Verdict:
    """What a judge said of one answer."""

    right: bool
    score: int
    """0 to 5."""


@dataclass(frozen=True)
class Judge:
    """A server, and which of its models is asked how."""

    url: str
    """Its base, such as http://localhost:8000/v1."""
    model: str
    seed: int = 0
    key: str = ""

    @classmethod
    def at(cls, url: str, model: str | None = None, seed: int = 0, key: str = "") -> Judge:
        """The judge at an address; without a name the only model that the server has.

        Raises PrumergeError for what is no address, and where the server does not say which model it has.
        """
        try:
            parts = urlsplit(url)
            there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of brackets and ports
            there = False
        if not there:
            raise PrumergeError(
                f"{short(url)!r} is no address of a judge; give its base, such as http://localhost:8000/v1"
            )
        base = url.rstrip("/").removesuffix("/chat/completions")
        judge = cls(base, model or "", seed, key)
        return judge if model else cls(base, judge._only_model(), seed, key)

    @property
    def settings(self) -> dict[str, Any]:
        """What verdicts depend on."""
        return {
            "judge": self.model,
            "seed": self.seed,
            **SAMPLING,
            "system": SYSTEM,
            "prompt": PROMPT,
        }

    def ask(self, question: str, golds: Sequence[str], prediction: str) -> str:
        """What the judge replies about one answer. Several right answers are told with "or" between them.

        Raises PrumergeError where the server cannot be reached or refuses.
        """
        gold = " or ".join(dict.fromkeys(golds))
        told = PROMPT.format(question=question, gold=gold, prediction=prediction)
        body = {
            "model": self.model,
            "seed": self.seed,
            **SAMPLING,
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": told}],
        }
        answer = self._request("/chat/completions", body)
        try:
            reply = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise PrumergeError(
                f"{self.url} answers {short(json.dumps(answer))}, which is no chat completion; give the base "
                "of a server that speaks OpenAI's protocol"
            ) from None
        return reply if isinstance(reply, str) else ""

    def _only_model(self) -> str:
        try:
            names = [str(one["id"]) for one in self._request("/models")["data"]]
        except (KeyError, TypeError):
            names = []
        if len(names) != 1:
            raise PrumergeError(
                f"{self.url} has {len(names) or 'no'} models{': ' if names else ''}"
                f"{short(', '.join(names), 200)}; say which is the judge by --judge-model"
            )
        return names[0]

    def _request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """JSON from the server, tried again where it is busy or cannot be reached for a moment."""
        for number in range(1, max(_BUSY, _AWAY) + 1):
            try:
                return self._once(path, body)
            except HTTPError as error:
                with error:
                    said = short(_message(error.read()), 200)
                what = f"{self.url} says {error.code} to the judge's questions ({said})"
                tries = _BUSY if error.code in _PASSING else 1
                hint = f"set {KEY} to its key" if error.code in (401, 403) else "see --judge, --judge-model"
            except (OSError, HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                what = f"{self.url} does not answer as a judge ({short(str(reason), 200)})"
                tries, hint = 1 if isinstance(error, ValueError) else _AWAY, "see whether its server runs"
            if number >= tries:
                break
            time.sleep(2.0 ** (number - 1))
        raise PrumergeError(f"{what}; {hint}")

    def _once(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": "prumerge"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        with self._opener.open(Request(self.url + path, data, headers), timeout=_PATIENCE) as reply:
            return json.loads(reply.read())

    @cached_property
    def _opener(self) -> Any:
        return build_opener(_Here)


class _Here(HTTPRedirectHandler):
    """Follows nobody elsewhere: the key is for this server alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _message(body: bytes) -> str:
    """What a server says is wrong, in its JSON or as it stands."""
    text = body.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())


def read(reply: str) -> Verdict | None:
    """The last object of a reply that says yes or no with a score, as JSON or as Python writes it; None where
    there is none, or its score is none from 0 to 5."""
    for text in reversed(re.findall(r"\{[^{}]*\}", reply)):
        value = _parsed(text)
        if isinstance(value, dict) and (said := str(value.get("pred")).strip().lower()) in ("yes", "no"):
            score = _number(value.get("score"))
            return None if score is None else Verdict(said == "yes", score)
    return None


def _parsed(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _number(value: Any) -> int | None:
    """A score without what is behind its point, as Video-ChatGPT counts it."""
    try:
        score = float(value)
    except (TypeError, ValueError):
        return None
    return int(score) if 0 <= score <= 5 and not isinstance(value, bool) else None
