"""A server around a model that is made up: it answers with what it was asked, one character at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import uvicorn

from lmflow_core.api import (
    ChatTemplate,
    DecodeStep,
    DecodingRequest,
    DecodingSettings,
    RequestError,
    TokenLogprob,
    Tools,
    option,
)
from lmflow_core.config.request import Component
from lmflow_core.generation.chat_model import LoadedChatModel
from lmflow_serve.app import Service
from lmflow_serve.command import _bound, server_config
from lmflow_serve.options import ServeOptions

_CONTROL = {"<|user|>": 0xE000, "<|bot|>": 0xE001, "<|end|>": 0xE002, "<|system|>": 0xE003}
_FLOOD = 0xE010  # a token of a hundred thousand letters
_TEMPLATE = ChatTemplate(
    system="<|system|>{content}<|end|>",
    user="<|user|>{content}<|end|>",
    assistant_header="<|bot|>",
    assistant="{content}<|end|>",
    stop=("<|end|>",),
    tools=Tools(
        system="<|system|>{content}{tools}<|end|>",
        call="<call>{name} {arguments}</call>",
        before_calls="\n",
        result="<|user|>result {content}<|end|>",
    ),
)


class Letters:
    """One token per character; the control tokens are characters that no text holds."""

    bos = None
    eos = "<|end|>"
    control_tokens: Mapping[str, int] = _CONTROL
    spaces_after_control = False
    swallows_space: Mapping[str, tuple[bool, bool]] = {}
    fingerprint = "letters"

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        names = {number: name for name, number in _CONTROL.items()} | {_FLOOD: "z" * 100_000}
        return "".join(names.get(number) or chr(number) for number in ids)


class Parrot:
    """The model. ``prompts`` is what it was given; ``steps`` counts its tokens; ``gate`` lets slow answers go on."""

    reference = "some/folder/parrot"
    context_length = 200
    media = None

    tokenizer = Letters()

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.prompts: list[str] = []
        self.seeds: list[int] = []
        self.steps = 0
        self.writing = threading.Semaphore(0)
        self.gate = threading.Event()


@dataclass(frozen=True, kw_only=True)
class ParrotOptions:
    temperature: float = option(0.0, help="Above 0, the seed is told.", minimum=0)
    logprobs: int | None = option(None, help="Alternatives.", minimum=0)


class ParrotDecoder:
    """Repeats the last turn.

    ``slow`` turns wait at the gate, ``forever`` ones never end, ``broken`` ones fail, ``wrong`` ones turn out not to be
    possible, ``flood`` ones give megabytes.
    """

    def __init__(self, options: ParrotOptions) -> None:
        self.options = options

    def prepare(self, model: Any, services: Any) -> None:
        pass

    def decode(self, model: Any, request: DecodingRequest) -> Iterator[DecodeStep]:
        text = model.tokenizer.decode(request.prompt)
        model.prompts.append(text)
        model.seeds.append(request.seed)
        turn = text.split("<|user|>")[-1].split("<|end|>")[0]
        model.writing.release()
        if turn.startswith("slow"):
            model.gate.wait(60)
        if turn.startswith("broken"):
            raise RuntimeError("the parrot is dead")
        if turn.startswith("wrong"):
            raise RequestError("no parrot can say this")
        said = f"{turn} ({request.seed})" if self.options.temperature else turn
        letters = [_FLOOD] * 100 if turn == "flood" else [*map(ord, said), *sorted(request.stop_ids)[:1]]
        while turn.startswith("forever"):
            model.steps += 1
            time.sleep(0.005)
            yield DecodeStep((ord("x"),))
        for letter in letters[: request.max_new_tokens]:
            model.steps += 1
            yield DecodeStep((letter,), logprobs=self._logprobs(letter))

    def _logprobs(self, letter: int) -> tuple[TokenLogprob, ...]:
        if self.options.logprobs is None:
            return ()
        alternatives = tuple((letter + n, -0.5 - n) for n in range(self.options.logprobs))
        return (TokenLogprob(-0.5, alternatives),)


def _chat_model(model: Parrot, settings: DecodingSettings) -> LoadedChatModel:
    spec = SimpleNamespace(kind="decoder", unbounded=False, batches=False, name="parrot")
    component = Component("parrot", SimpleNamespace(spec=spec, qualified="x:parrot"), ParrotOptions())  # type: ignore[arg-type]
    catalogue = SimpleNamespace(of_kind=lambda kind: SimpleNamespace(load=lambda name: ParrotDecoder))
    decoder = ParrotDecoder(ParrotOptions())
    services: Any = None
    return LoadedChatModel("some/folder/parrot", model, decoder, _TEMPLATE, settings, component, catalogue, services)  # type: ignore[arg-type]


@dataclass
class Running:
    """A server that runs: its model, its address and how to reach and end it."""

    model: Parrot
    url: str
    server: uvicorn.Server
    thread: threading.Thread

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def client(self, key: str = "none", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30, **options)

    def ask(self, content: str, **fields: Any) -> Any:
        return self.client().chat.completions.create(
            model="parrot", messages=[{"role": "user", "content": content}], **fields
        )

    def end(self) -> None:
        self.model.gate.set()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def _running(settings: DecodingSettings | None = None, key: str | None = None, **changes: Any) -> Iterator[Running]:
    options = ServeOptions(port=0, **changes)
    listener = _bound(options.host, options.port)
    model = Parrot()
    service = Service(_chat_model(model, settings or DecodingSettings()), "parrot", options, key)
    server = uvicorn.Server(server_config(service, options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    running = Running(model, f"http://127.0.0.1:{listener.getsockname()[1]}", server, thread)
    try:
        yield running
    finally:
        running.end()


@pytest.fixture
def serving() -> Iterator[Callable[..., Running]]:
    """Start servers for the time of a test: ``serving(max_queue=1, key="secret")``."""
    with contextlib.ExitStack() as stack:
        yield lambda *settings, **options: stack.enter_context(_running(*settings, **options))


@pytest.fixture(scope="session")
def _shared() -> Iterator[Running]:
    with _running() as running:
        yield running


@pytest.fixture
def parrot(_shared: Running) -> Running:
    """A server with the options that it has by default, whose model has forgotten other tests."""
    _shared.model.forget()
    return _shared
