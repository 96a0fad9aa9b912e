"""Fetching pictures: only when asked for, within bounds, and never from places that data should not reach."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from lmflow_multimodal.pictures import PictureLimits, open_picture
from lmflow_multimodal.pictures.fetching import _is_public

_LOCAL = PictureLimits(fetch=True, private=True, max_bytes=50_000, timeout=1.0, deadline=1.5)


def _png() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(written, "PNG")
    return written.getvalue()


class _Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        action = getattr(self, "_" + self.path.strip("/").split("/")[0].split("?")[0], None)
        if action is None:
            self.send_error(404)
        else:
            action()

    def _begin(self, length: int | None, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _picture(self) -> None:
        self._begin(len(_png()))
        self.wfile.write(_png())

    def _large(self) -> None:
        self._begin(10**9)

    def _endless(self) -> None:
        self._begin(None)
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            return

    def _short(self) -> None:
        self._begin(1000)
        self.wfile.write(_png())

    def _silent(self) -> None:
        time.sleep(1.6)

    def _dripping(self) -> None:
        self._begin(None)
        try:
            for byte in _png():
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            return

    def _to(self) -> None:
        self._begin(0, 302, Location=self.path.removeprefix("/to/"))

    def _loop(self) -> None:
        self._begin(0, 302, Location="/loop")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def _refused(address: str, limits: PictureLimits = _LOCAL) -> str:
    with pytest.raises(ValueError, match="the image ") as caught:
        open_picture(address, limits)
    return str(caught.value)


def test_a_picture_is_fetched_when_asked_for(server: str) -> None:
    picture = open_picture(f"{server}/picture/größe a.png?x=1 2", _LOCAL)
    assert (picture.digest, picture.image.size) == (hashlib.sha256(_png()).hexdigest(), (3, 2))
    assert _Handler.asked[-1] == "/picture/gr%C3%B6%C3%9Fe%20a.png?x=1%202"


def test_nothing_is_asked_for_where_that_is_not_allowed(server: str) -> None:
    _Handler.asked.clear()
    assert "none is fetched unless you ask" in _refused(f"{server}/picture", PictureLimits())
    assert "127.0.0.1 is within a private network" in _refused(f"{server}/picture", PictureLimits(fetch=True))
    assert "within a private network" in _refused(
        f"{server.replace('127.0.0.1', 'localhost')}/picture", PictureLimits(fetch=True)
    )
    assert _Handler.asked == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("large", "has 1,000,000,000 bytes, more than the 50,000"),
        ("endless", "has more than the 50,000 bytes"),
        ("short", "the server sends 71 of 1000 bytes"),
        ("silent", "the server is silent for 1 seconds"),
        ("dripping", "it takes more than 1.5 seconds"),
        ("missing", "the server answers 404"),
        ("loop", "it was moved more than 3 times"),
        ("to/file:///etc/passwd", "it leads to an address of the kind file:"),
        ("to/ftp://host/a.png", "it leads to an address of the kind ftp:"),
    ],
)
def test_what_a_server_may_not_do(server: str, path: str, why: str) -> None:
    assert why.replace("71", str(len(_png()))) in _refused(f"{server}/{path}")


def test_a_server_may_point_elsewhere_but_not_into_a_private_network(server: str) -> None:
    assert open_picture(f"{server}/to/{server}/picture", _LOCAL).image.size == (3, 2)
    assert open_picture(f"{server}/to//picture", _LOCAL).image.size == (3, 2)
    elsewhere = server.replace("127.0.0.1", "127.0.0.2")
    assert "127.0.0.2 is within a private network" in _refused(f"{server}/to/{elsewhere}/picture")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert _is_public(address) is public


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "cannot be fetched: " in _refused(f"http://127.0.0.1:{port}/a.png")
    assert "no name of a user" in _refused("http://me:secret@127.0.0.1/a.png")
    assert "the address is wrong" in _refused("http://127.0.0.1:port/a.png")
