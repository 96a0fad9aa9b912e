"""Errors in the form that clients of OpenAI's interface expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmflow_core.api import RequestError

INVALID = "invalid_request_error"


class ApiError(Exception):
    """A request that is not answered; ``status`` is that of HTTP, the rest is the body of the error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error of a request that cannot be answered as it was made."""
    return ApiError(400, message, param=param, code=code)


def overloaded() -> ApiError:
    """Return the error of a request that finds the queue full."""
    return ApiError(
        429,
        "the server is busy and its queue is full; try again later",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": "1"},
    )


def failed(cause: BaseException | None = None) -> ApiError:
    """Return the error of a request whose answer could not be written.

    Args:
        cause: told when it lies in what was asked for; any other is in the server's log.
    """
    if isinstance(cause, RequestError):
        return invalid(str(cause))
    return ApiError(500, "the answer could not be written; the server's log tells why", kind="server_error")
