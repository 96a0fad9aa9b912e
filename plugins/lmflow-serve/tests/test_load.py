"""Many clients, some of them slow or broken: nobody waits for them, and what they leave behind is free again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from lmflow_core.api import RequestError
from lmflow_core.generation.many import GrowingBatch
from lmflow_serve.answering import Answering
from lmflow_serve.writing import Job, QueueFullError, Writers

Serving = Callable[..., Any]


def _eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail when it does not within some seconds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def _metrics(server: Any) -> str:
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        text: str = response.read().decode()
    return text


def _value(server: Any, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", _metrics(server), re.MULTILINE)
    return float(found.group(1)) if found else 0.0


@contextlib.contextmanager
def _raw_request(server: Any, content: str, **fields: Any) -> Iterator[socket.socket]:
    """Send a request over a connection of its own and give the connection."""
    messages = [{"role": "user", "content": content}]
    body = json.dumps({"model": "parrot", "messages": messages, **fields})
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        yield connection


@contextlib.contextmanager
def _waiting(server: Any, count: int) -> Iterator[list[Any]]:
    """Have one answer written, which waits at the gate, and others in the queue; gives the answers in the end."""
    answers: list[Any] = []
    with ThreadPoolExecutor(count + 1) as pool:
        futures = [pool.submit(server.ask, "slow")]
        _eventually(lambda: _value(server, "lmflow_running") == 1)
        for number in range(count):
            futures.append(pool.submit(server.ask, f"later {number}"))
            _eventually(lambda number=number: _value(server, "lmflow_queue_depth") == number + 1)
        try:
            yield answers
        finally:
            server.model.gate.set()
        answers += [future.result().choices[0].message.content for future in futures]


def test_past_the_queue_clients_are_told_to_come_back(serving: Serving) -> None:
    server = serving(max_queue=2)
    with _waiting(server, 2) as answers:
        with pytest.raises(openai.RateLimitError) as caught:
            server.ask("too many")
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.RateLimitError):
            server.ask("too many", stream=True)
    assert answers == ["slow", "later 0", "later 1"]
    assert len(server.model.prompts) == 3
    assert server.ask("now").choices[0].message.content == "now"


def test_a_place_may_be_taken_while_a_prompt_is_read() -> None:
    async def submit_three() -> None:
        model: Any = SimpleNamespace(batches=False, open_batch=lambda limits: None)
        writers = Writers(model, slots=1, max_queue=1, cache_tokens=None, on_end=lambda job: None)
        for _ in range(2):
            writers.submit([Job(SimpleNamespace())])  # type: ignore[arg-type]
        with pytest.raises(QueueFullError):
            writers.submit([Job(SimpleNamespace())])  # type: ignore[arg-type]
        assert (writers.waiting, writers.running) == (2, 0)

    asyncio.run(submit_three())


def test_without_a_queue_one_is_served_at_a_time(serving: Serving) -> None:
    server = serving(max_queue=0)
    with _waiting(server, 0), pytest.raises(openai.RateLimitError):
        server.ask("too many")
    assert server.ask("now").choices[0].message.content == "now"


def test_two_slots_write_at_the_same_time(serving: Serving) -> None:
    server = serving(slots=2)
    with _waiting(server, 0) as answers:
        assert server.ask("quick").choices[0].message.content == "quick"
        assert answers == []
    assert answers == ["slow"]


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_frees_the_slot(serving: Serving, stream: bool) -> None:
    server = serving()
    with _raw_request(server, "forever", stream=stream):
        server.model.writing.acquire(timeout=20)
        assert _value(server, "lmflow_running") == 1
    _eventually(lambda: _value(server, "lmflow_running") == 0)
    steps = server.model.steps
    assert server.ask("next").choices[0].message.content == "next"
    assert server.model.steps == steps + len("next") + 1
    assert _value(server, 'lmflow_answers_total{reason="cancelled"}') == 1


def test_a_closed_stream_of_the_official_client_frees_the_slot(serving: Serving) -> None:
    server = serving()
    stream = server.ask("forever", stream=True)
    assert next(stream).choices[0].delta.role == "assistant"
    assert next(stream).choices[0].delta.content == "x"
    stream.close()
    _eventually(lambda: _value(server, "lmflow_running") == 0)
    assert server.ask("next").choices[0].message.content == "next"


def test_who_leaves_the_queue_is_never_answered(serving: Serving) -> None:
    server = serving(max_queue=1)
    with _waiting(server, 0) as answers:
        with _raw_request(server, "gone", stream=True):
            _eventually(lambda: _value(server, "lmflow_queue_depth") == 1)
        _eventually(lambda: _value(server, "lmflow_queue_depth") == 0)
    assert answers == ["slow"]
    assert server.ask("next").choices[0].message.content == "next"
    assert not any("gone" in prompt for prompt in server.model.prompts)


def test_a_reader_that_does_not_read_holds_up_nobody_and_is_let_go(serving: Serving) -> None:
    server = serving(client_timeout=0.5)
    ended = 'lmflow_requests_total{path="/v1/chat/completions",status="200"}'
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(_raw_request(server, "flood", stream=True))
        assert server.ask("next").choices[0].message.content == "next"
        assert _value(server, "lmflow_running") == 0
        _eventually(lambda: _value(server, ended) == 4)


def test_a_connection_that_nobody_reads_is_closed(serving: Serving) -> None:
    server = serving(client_timeout=0.3)
    with _raw_request(server, "flood", stream=True) as connection:
        _eventually(lambda: _is_cut_off(connection, b"x"))


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"", b"G"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET ", b"x"),
        (b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    ],
)
def test_a_request_that_comes_a_little_at_a_time_is_cut_off(serving: Serving, begin: bytes, more: bytes) -> None:
    server = serving(client_timeout=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(begin)
        _eventually(lambda: _is_cut_off(connection, more))
    assert server.ask("next").choices[0].message.content == "next"


def _is_cut_off(connection: socket.socket, more: bytes) -> bool:
    try:
        connection.sendall(more)
    except ConnectionError:
        return True
    return False


def test_half_a_body_and_nonsense_harm_nobody(serving: Serving) -> None:
    server = serving()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for start in (
        b"",
        b"\x16\x03\x01\x02\x00",
        head,
        head + b"Content-Length: 50\r\n\r\n{",
        head + b"Content-Length: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(start)
    assert server.ask("next").choices[0].message.content == "next"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_costs_one_request(serving: Serving, caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    server = serving()
    with pytest.raises(openai.APIError, match="the answer could not be written") as caught:
        list(server.ask("broken", stream=stream))
    assert isinstance(caught.value, openai.InternalServerError) is not stream
    assert "the parrot is dead" in caplog.text
    assert server.ask("next").choices[0].message.content == "next"
    assert _value(server, 'lmflow_answers_total{reason="error"}') == 1


@pytest.mark.parametrize("stream", [False, True])
def test_what_turns_out_not_to_be_possible_is_the_clients_error(
    serving: Serving, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    server = serving()
    with pytest.raises(openai.APIError, match="no parrot can say this") as caught:
        list(server.ask("wrong", stream=stream))
    assert isinstance(caught.value, openai.BadRequestError) is not stream
    assert caplog.text == ""
    assert server.ask("next").choices[0].message.content == "next"


def test_an_answer_that_cannot_begin_costs_one_request(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serving()
    with monkeypatch.context() as patched:

        def refuse(*_: object) -> None:
            raise RequestError("there is no room")

        patched.setattr(GrowingBatch, "add", refuse)
        with pytest.raises(openai.BadRequestError, match="there is no room"):
            server.ask("first")
    assert server.ask("next").choices[0].message.content == "next"
    assert _value(server, "lmflow_running") == 0


def test_prompts_that_are_being_read_take_places_in_the_queue(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(max_queue=0)
    reading, go_on = threading.Event(), threading.Event()
    begin = Answering.begin

    def slowly(answering: Answering, asked: Any) -> Any:
        reading.set()
        go_on.wait(20)
        return begin(answering, asked)

    monkeypatch.setattr(Answering, "begin", slowly)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.ask, "first")
        assert reading.wait(20)
        with pytest.raises(openai.RateLimitError):
            server.ask("second")
        go_on.set()
        assert first.result().choices[0].message.content == "first"


def test_every_client_gets_its_own_answer(serving: Serving) -> None:
    server = serving(max_queue=64, slots=2)
    client = server.client()

    def ask(number: int) -> None:
        said = f"number {number}"
        answer = client.chat.completions.create(
            model="parrot", messages=[{"role": "user", "content": said}], stream=bool(number % 2)
        )
        if number % 2:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == said
        else:
            assert answer.choices[0].message.content == said

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, range(200)))
    assert len(server.model.prompts) == 200


def test_health_and_metrics_are_told(serving: Serving) -> None:
    server = serving(key="secret")
    with urllib.request.urlopen(f"{server.url}/healthz") as response:
        assert json.loads(response.read()) == {"status": "ok"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        _metrics(server)
    open_server = serving()
    open_server.ask("hi")
    with contextlib.suppress(openai.NotFoundError):
        open_server.client().models.retrieve("nothing")
    told = _metrics(open_server)
    for line in (
        'lmflow_requests_total{path="/v1/chat/completions",status="200"} 1.0',
        'lmflow_requests_total{path="other",status="404"} 1.0',
        'lmflow_request_seconds_count{path="/v1/chat/completions"} 1.0',
        "lmflow_prompt_tokens_total 5.0",
        "lmflow_generated_tokens_total 3.0",
        'lmflow_answers_total{reason="stop"} 1.0',
        "lmflow_first_piece_seconds_count 1.0",
        "lmflow_queue_depth 0.0",
        "lmflow_running 0.0",
    ):
        assert f"\n{line}\n" in told


def test_running_answers_are_finished_before_the_end(serving: Serving) -> None:
    server = serving()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(server.ask, "slow and steady")
        _eventually(lambda: _value(server, "lmflow_running") == 1)
        server.server.should_exit = True
        _eventually(lambda: not _accepts(server))
        server.model.gate.set()
        assert running.result().choices[0].message.content == "slow and steady"
    server.thread.join(20)
    assert not server.thread.is_alive()


def _accepts(server: Any) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    except OSError:
        return False
    return True


def test_an_answer_that_takes_longer_than_the_grace_time_is_cut(serving: Serving) -> None:
    server = serving(grace_time=0.3)
    stream = server.ask("forever", stream=True)
    next(stream)
    server.server.should_exit = True
    server.thread.join(20)
    assert not server.thread.is_alive()
    steps = server.model.steps
    time.sleep(0.1)
    assert server.model.steps <= steps + 1
