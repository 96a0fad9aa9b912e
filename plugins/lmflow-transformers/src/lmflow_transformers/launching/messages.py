"""Messages between the launchers of a job: JSON, one object a line, over TCP."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

_LARGEST = 1 << 20
_SENDING = 5.0


class Channel:
    """One end of a connection.

    Attributes:
        closed: whether the other end is gone.
        heard: when something came last, by ``time.monotonic``.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.settimeout(_SENDING)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed = False
        self.heard = time.monotonic()
        self._sent = 0.0
        self._rest = b""

    def send(self, kind: str, **values: Any) -> None:
        """Send a message; what cannot be sent closes the channel."""
        self._sent = time.monotonic()
        try:
            self.socket.sendall(json.dumps({"kind": kind, **values}).encode() + b"\n")
        except OSError:
            self.close()

    def beat(self, seconds: float) -> None:
        """Tell that this end is there, unless something was sent less than some seconds ago."""
        if not self.closed and time.monotonic() - self._sent >= seconds:
            self.send("beat")

    def silent(self, seconds: float) -> bool:
        """Whether nothing came for some seconds."""
        return time.monotonic() - self.heard > seconds

    def received(self) -> list[Message]:
        """Return the messages that are there, without waiting; what is none closes the channel."""
        if self.closed or not readable([self.socket], 0):
            return []
        try:
            piece = self.socket.recv(1 << 16)
        except OSError:
            piece = b""
        if not piece:
            self.close()
            return []
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + piece).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            messages = [None]
        if len(self._rest) > _LARGEST or not all(isinstance(message, dict) for message in messages):
            self.close()
            return []
        return messages

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self.socket.close()

    def part(self, seconds: float) -> None:
        """End the connection once the other end has read what was sent, or after some seconds."""
        end = time.monotonic() + seconds
        try:
            self.socket.shutdown(socket.SHUT_WR)
            # What was not read would make the system throw away what is on its way.
            while time.monotonic() < end and not self.closed:
                readable([self.socket], 0.1)
                self.received()
        except OSError:
            pass
        self.close()


def readable(sockets: Sequence[socket.socket], seconds: float) -> list[socket.socket]:
    """Return those from which something can be read, waiting some seconds for one."""
    return select.select(sockets, [], [], seconds)[0]
