"""From tokens that come one by one to text that can be sent: whole letters, and no stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Words:
    """The text of an answer as it grows. All that `add` and `rest` return is the text that decoding all
    tokens at once gives, without white space at its ends and without what follows a stop text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self.decode, self.stops = decode, stops
        self.stopped = False
        """Whether a stop text came."""
        self._tokens: list[int] = []
        self._sent = ""

    def add(self, token: int) -> str:
        """What can be sent when this token has come, perhaps nothing."""
        self._tokens.append(token)
        text = self._text()
        if self.stopped:
            return self._new(text)
        text = text.rstrip("\ufffd")  # the first bytes of a letter
        held = max((_overlap(text, stop) for stop in self.stops), default=0)
        return self._new(text[: len(text) - held].rstrip())

    def rest(self) -> str:
        """What is left to send when no token follows."""
        return self._new(self._text().rstrip())

    def _text(self) -> str:
        text = self.decode(self._tokens).lstrip()
        ends = [at for at in map(text.find, self.stops) if at >= 0]
        self.stopped = bool(ends)
        return text[: min(ends)].rstrip() if ends else text

    def _new(self, text: str) -> str:
        new = text[len(self._sent) :]
        self._sent += new
        return new


def _overlap(text: str, stop: str) -> int:
    """Letters at the end of a text that may be the beginning of a stop text."""
    return next((size for size in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:size])), 0)
