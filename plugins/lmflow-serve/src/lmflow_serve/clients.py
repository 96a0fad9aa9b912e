"""What clients may do in a request: send slowly or too much, and leave while its answer is written."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lmflow_serve.errors import ApiError


async def read_body(request: Request, most_bytes: int, seconds: float) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: it is no JSON by its type, is too long, or does not come in time.
        ClientDisconnect: the client left.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the request must have the header 'Content-Type: application/json'")
    if int(request.headers.get("content-length", 0)) > most_bytes:
        raise too_long(most_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise too_long(most_bytes)
    except TimeoutError:
        raise ApiError(
            408, f"the body of the request did not come within {seconds:g} s", headers={"Connection": "close"}
        ) from None
    return bytes(body)


def too_long(most_bytes: int, beside: str = "") -> ApiError:
    """Return the error of a body of more bytes than that, ``beside`` what is not counted."""
    message = f"the body of the request is longer than {most_bytes} bytes{beside}"
    return ApiError(413, message, headers={"Connection": "close"})


@contextlib.asynccontextmanager
async def until_left(receive: Receive, leave: Callable[[], None]) -> AsyncIterator[None]:
    """Call ``leave`` when the client goes away, and in any case at the end. The body must have been read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        leave()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        leave()


class EventStream(Response):
    """Server-sent events, each a JSON document, ended by ``[DONE]``; ``leave`` is called when nobody reads any more."""

    media_type = "text/event-stream"

    def __init__(self, documents: AsyncIterator[Mapping[str, Any]], leave: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._documents = documents
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until there are none or the client leaves."""
        async with until_left(receive, self._leave):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for document in self._documents:
                await send({"type": "http.response.body", "body": _event(_line(document)), "more_body": True})
            await send({"type": "http.response.body", "body": _event(b"[DONE]"), "more_body": False})


def _line(document: Mapping[str, Any]) -> bytes:
    """Return JSON on one line."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
