"""Clients of ``lmflow serve`` that are broken, slow, leaving or hostile, beside one that must always be answered.

A case survives when a bad request is answered by a status of 4xx with an error in OpenAI's form, or its connection is
closed where there was no whole request to answer; a good one by its answer. The server must live on, without a
traceback, with nothing left running, and with the memory it had after its first hundred requests.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hostile_requests import CHAT, FRAMINGS, STRANGERS, hostile_body, hostile_framing
from serving import Server, chat, first_status, request, reset, served, wrong_answer
from tally import Tally, campaign_arguments

_PATIENCE = 3
_CLIENTS = 16
_IDLE = 300
_MEMORY_FROM, _MEMORY_AT = 100, (1000, 3000)
_FLAGS = ("--client-timeout", str(_PATIENCE), "--max-queue", "3000", "--max-new-tokens", "12")
Case = Callable[[Server, random.Random], str | None]


def main() -> None:
    """Run the campaign."""
    cases, chance = campaign_arguments(__doc__, 2500)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        with served(Path(folder), *_FLAGS) as server:
            _attack(server, cases, chance, tally)
        if cases >= 1000:
            with served(Path(folder), *_FLAGS) as server:
                _measure(server, chance, tally)
    tally.finish()


def _attack(server: Server, cases: int, chance: random.Random, tally: Tally) -> None:
    with _beside(server, tally), ThreadPoolExecutor(_CLIENTS) as pool:
        for name, send in STRANGERS:
            tally.add("strange Host or Origin", _refused(server, send, name))
        for kind, case, share in _KINDS:
            seeds = [chance.random() for _ in range(max(1, round(share * cases)))]
            for problem in pool.map(lambda seed, case=case: case(server, random.Random(seed)), seeds):
                tally.add(kind, problem)
                print(kind, problem, flush=True) if problem else None
        for method, sent in FRAMINGS:
            tally.add("framing, one by one", _framing_problem(server, method, sent))
        tally.add(f"{_IDLE} idle connections", _idle(server))
    tally.add("nothing is left running", None if server.idles() else "answers run on")
    tally.add("the server lives, without a traceback", server.problems())


def _refused(server: Server, send: Callable[[str], bytes], name: str) -> str | None:
    paths = ("/v1/models", "/metrics", "/v1/models/model")
    allowed = [path for path in paths if first_status(server.exchange(send(path))) not in (400, 403)]
    return f"{name} was let in to {allowed}" if allowed else None


def _body(server: Server, chance: random.Random) -> str | None:
    path, body = hostile_body(chance)
    problem = wrong_answer(server.exchange(request("POST", path, body)))
    return problem and f"{problem} to {path} {body[:300]!r}"


def _framing(server: Server, chance: random.Random) -> str | None:
    return _framing_problem(server, *hostile_framing(chance))


def _framing_problem(server: Server, method: str, sent: bytes) -> str | None:
    received = server.exchange(sent)
    problem = wrong_answer(received, method) if received else None
    return problem and f"{problem} to {sent[:300]!r}"


def _leaving(server: Server, chance: random.Random) -> str | None:
    """Send a part of a request, read a part of its answer, and go away in one of three ways."""
    sent = chat("tell me", stream=chance.random() < 0.5, max_tokens=100, n=chance.choice((1, 1, 4)))
    connection = server.connect()
    with contextlib.suppress(ConnectionError):
        connection.sendall(sent[: chance.choice((0, 10, 60, 200, len(sent), len(sent)))])
        if chance.random() < 0.4 and sent.endswith(b"}"):
            connection.settimeout(chance.random())
            with contextlib.suppress(TimeoutError):
                connection.recv(chance.choice((1, 100, 1000)))
        if chance.random() < 0.3:
            connection.shutdown(socket.SHUT_WR)
    reset(connection) if chance.random() < 0.5 else connection.close()
    return server.problems()


def _slow(server: Server, chance: random.Random) -> str | None:
    """Send a request a byte at a time; the server must end it, and not much later than its patience allows."""
    sent = chat("hi") if chance.random() < 0.5 else _head_and(chance)
    begin = chance.randrange(len(sent) - 40)
    with server.connect() as connection:
        try:
            connection.sendall(sent[:begin])
            for at in range(begin, begin + 40):
                connection.sendall(sent[at : at + 1])
                time.sleep(_PATIENCE / 10)
            received = connection.recv(1000)
        except ConnectionError:
            return None
    return None if first_status(received) in (0, 408) else f"a slow request was answered: {received[:200]!r}"


def _head_and(chance: random.Random) -> bytes:
    """Return a request whose head, or whose body in chunks, takes long."""
    head = b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + (
        b"X: y\r\n" * 100 if chance.random() < 0.5 else b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 100
    )


def _unread(server: Server, chance: random.Random) -> str | None:
    """Ask for more than the buffers of a connection hold, and read none of it: the server must let go."""
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = request("GET", "/metrics").replace(b"Connection: close\r\n", b"")
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.settimeout(10 * _PATIENCE)
            for _ in range(chance.choice((100, 3000))):
                connection.sendall(asked)
            time.sleep(3 * _PATIENCE)
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(_PATIENCE / 10)
            return "a client that reads nothing is still connected"
    return None


_KINDS: tuple[tuple[str, Case, float], ...] = (
    ("bodies and fields", _body, 0.52),
    ("framing", _framing, 0.2),
    ("leaving", _leaving, 0.2),
    ("a byte at a time", _slow, 0.06),
    ("never reading", _unread, 0.02),
)


def _idle(server: Server) -> str | None:
    with contextlib.ExitStack() as stack:
        for _ in range(_IDLE):
            stack.enter_context(server.connect())
        return wrong_answer(server.exchange(chat("hi")))


@contextlib.contextmanager
def _beside(server: Server, tally: Tally) -> Iterator[None]:
    """Have a good client ask again and again; each answer must be the one that it got in peace."""
    expected = _said(server.exchange(chat("who is there")))
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.2):
            said = _said(server.exchange(chat("who is there")))
            tally.add("a good client beside them", None if said == expected else f"{said} instead of {expected}")

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            ended.set()
            asking.result()


def _said(received: bytes) -> str:
    if first_status(received) != 200:
        return f"no answer: {received[:200]!r}"
    return str(json.loads(received.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"])


def _measure(server: Server, chance: random.Random, tally: Tally) -> None:
    """Ask as many clients do, one in three of them hostile, and compare the memory."""

    def ask(seed: float) -> str | None:
        own = random.Random(seed)
        if own.random() < 0.33:
            return own.choice((_framing, _leaving))(server, own)
        return wrong_answer(server.exchange(chat(f"number {seed}", temperature=1, max_tokens=12)))

    done, early = 0, 0
    with ThreadPoolExecutor(_CLIENTS) as pool:
        for until in (_MEMORY_FROM, *_MEMORY_AT):
            for problem in pool.map(ask, [chance.random() for _ in range(until - done)]):
                tally.add("mixed requests while memory is measured", problem)
            done, held = until, server.resident_bytes()
            early = early or held
            print(f"after {done} requests the server holds {held / 1e6:.0f} MB")
            grown = held / early - 1
            tally.add("memory", None if grown < 0.05 else f"{grown:.1%} more after {done} requests")


if __name__ == "__main__":
    main()
