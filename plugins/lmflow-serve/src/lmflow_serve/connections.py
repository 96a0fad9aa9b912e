"""Connections: uvicorn's HTTP/1.1, for clients that send nonsense, stop in the midst of it, or never read."""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from lmflow_serve.errors import invalid

_NONSENSE = "this is no HTTP/1.1 request that can be read: its head or the framing of its body is wrong, or too long"


class Connection(H11Protocol):
    """A connection that ends when its client does nothing that helps for ``timeout_keep_alive`` seconds.

    That is: it sends no whole head of a request, does not read what waits for it, or does not let the connection close.
    uvicorn by itself measures that time only where nothing at all is sent behind an answer.
    """

    _look: asyncio.TimerHandle
    _unread: asyncio.TimerHandle | None = None
    _answered: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look after the connection."""
        super().connection_made(transport)
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        """End to look after it."""
        self._look.cancel()
        self._cancel_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the client some time to read what waits for it."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, as the client has read."""
        super().resume_writing()
        self._cancel_unread()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the form of other errors; in the midst of an answer there is no place for one."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(invalid(_NONSENSE).body).encode()
            kind, length = ("Content-Type", "application/json"), ("Content-Length", str(len(body)))
            head = h11.Response(status_code=400, headers=[kind, length, ("Connection", "close")])
            for event in (head, h11.Data(body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _cancel_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()

    def _look_again(self) -> None:
        self._look = self.loop.call_later(self.timeout_keep_alive, self._check)

    def _check(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing():
            self.transport.abort()
            return
        if idle and self.cycle is self._answered:
            self.transport.close()
        self._answered = self.cycle if idle else None
        self._look_again()
