"""A ``lmflow serve`` of a tiny model in a process of its own, and what its answers must look like."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmflow_core.testing.tiny import make_tiny_model

# Longer than the server's own patience by far: what takes longer hangs.
_HANGS = 120


class Server:
    """A server that runs; ``log`` is what it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self.port = port
        self._log = log

    def connect(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=_HANGS)

    def exchange(self, sent: bytes) -> bytes:
        """Send bytes over a connection of its own and return all that comes until the server closes it."""
        received = bytearray()
        with self.connect() as connection:
            # The server may close before it has read everything; what it said before that still counts.
            with contextlib.suppress(ConnectionError):
                connection.sendall(sent)
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(65536):
                    received += piece
        return bytes(received)

    def problems(self) -> str | None:
        """Tell whether the server died or wrote a traceback; None when all is well."""
        if (status := self._process.poll()) is not None:
            return f"the server ended with status {status}"
        written = self._log.read_text(encoding="utf-8", errors="replace")
        return f"the server wrote {written[-2000:]}" if "Traceback" in written else None

    def resident_bytes(self) -> int:
        """Return how much memory the server holds."""
        with open(f"/proc/{self._process.pid}/status", encoding="ascii") as file:
            facts = dict(line.split(":", 1) for line in file)
        return int(facts["VmRSS"].split()[0]) * 1024

    def idles(self) -> bool:
        """Wait until nothing is written or waits any more; return whether that came about."""
        end = time.monotonic() + _HANGS
        while time.monotonic() < end:
            told = self.exchange(request("GET", "/metrics")).decode()
            if "\nlmflow_running 0.0\n" in told and "\nlmflow_queue_depth 0.0\n" in told:
                return True
            time.sleep(0.1)
        return False


@contextlib.contextmanager
def served(folder: Path, *arguments: str) -> Iterator[Server]:
    """Serve a tiny model, named ``model``, from a folder."""
    model = folder / "model"
    if not model.exists():
        make_tiny_model(model)
    log = folder / "log"
    line = [sys.executable, "-m", "lmflow_core", "serve", "--model", str(model), "--port", "0", *arguments]
    with log.open("wb") as written:
        process = subprocess.Popen(line, stderr=written)
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text(encoding="utf-8"))):
            if process.poll() is not None:
                raise SystemExit(log.read_text(encoding="utf-8"))
            time.sleep(0.1)
        yield Server(process, int(found.group(1)), log)
    finally:
        process.terminate()
        process.wait(_HANGS)


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """Return the bytes of a request; the connection is closed behind its answer."""
    given = {"Host": "localhost", "Connection": "close", **headers}
    if body is not None:
        given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **given}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")


def chat(content: str, **fields: Any) -> bytes:
    """Return the bytes of a request that is as it should be."""
    asked = {"model": "model", "messages": [{"role": "user", "content": content}], "max_tokens": 6, **fields}
    return request("POST", "/v1/chat/completions", json.dumps(asked).encode())


def first_status(received: bytes) -> int:
    """Return the status of the first answer; 0 when there is none."""
    found = re.match(rb"HTTP/1\.1 (?:100 Continue\r\n\r\nHTTP/1\.1 )?(\d{3})", received)
    return int(found.group(1)) if found else 0


def wrong_answer(received: bytes, method: str = "POST") -> str | None:
    """Tell what is wrong with the first answer of the server; None when it is as it must be."""
    response = http.client.HTTPResponse(_Received(received), method=method)  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read()
    except (http.client.HTTPException, ValueError) as error:
        return f"no answer of HTTP ({error!r}): {received[:200]!r}"
    if method == "HEAD" or (response.status == 200 and not response.headers["Content-Type"].endswith("json")):
        return None if response.status < 500 else f"status {response.status}"
    try:
        told = json.loads(body)
    except ValueError:
        return f"status {response.status} without JSON: {body[:200]!r}"
    if response.status == 200:
        return None
    if not 400 <= response.status < 500:
        return f"status {response.status}: {body[:200]!r}"
    error = told.get("error")
    formed = isinstance(error, dict) and set(error) == {"message", "type", "param", "code"} and error["message"]
    return None if formed else f"status {response.status} with an error of another form: {body[:200]!r}"


def reset(connection: socket.socket) -> None:
    """Close a connection without a good-bye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class _Received:
    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._received)
