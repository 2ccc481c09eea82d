"""Why a request is not answered, as the client is told."""

from __future__ import annotations

from typing import Any

from prumerge.errors import PrumergeError


class Refusal(PrumergeError):
    """A request that is not answered: an HTTP status, and what OpenAI's error form says beside words."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def body(self) -> dict[str, Any]:
        """OpenAI's error form."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def refusal_of(error: Exception) -> Refusal:
    """What a client is told of an error: of what it can mend how, of a fault in code only that it is one."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, PrumergeError):
        return Refusal(" ".join(str(error).split()), code="invalid_value")
    return Refusal("the server failed at this request; its log says where", 500, code="internal_error")


def busy(message: str) -> Refusal:
    """There is more to do than can wait."""
    return Refusal(message, 429, code="rate_limit_exceeded", retry_after=1)
