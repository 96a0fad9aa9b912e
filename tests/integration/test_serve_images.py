"""``lmflow serve`` with a model that sees: answers as ``generate --image`` gives them, and images that are refused."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import uvicorn
from PIL import Image

from lmflow_core.config.request import resolve
from lmflow_core.config.schema import CHAT
from lmflow_core.generation.chat_model import LoadedChatModel, open_chat_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.seeing import make_seeing_model
from lmflow_serve.app import Service
from lmflow_serve.command import _bound, server_config
from lmflow_serve.options import ServeOptions

Cli = Callable[..., CliResult]
Ask = Callable[..., Any]
_FLAGS = ("--template", "chatml", "--device", "cpu", "--max-new-tokens", "6", "--temperature", "0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seeing_model(tmp_path_factory.mktemp("models") / "seeing", "qwen2_vl")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, noise = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(3)]
    for path, shape in zip(paths, ((20, 30, 3), (40, 16, 3), (9, 9, 3)), strict=True):
        Image.fromarray(noise.integers(0, 255, shape, dtype=np.uint8)).save(path)
    return paths


def _held(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _part(url: object, **more: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def _shown(photo: Path) -> dict[str, Any]:
    return _part(_held(photo.read_bytes()))


def _asking(url: str) -> Ask:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)

    def ask(*parts: object, before: Any = (), **fields: Any) -> Any:
        content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
        messages: Any = [*before, {"role": "user", "content": content}]
        return client.chat.completions.create(model="seeing", messages=messages, **fields)

    return ask


def _text(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def _opened(model: Path, **values: object) -> LoadedChatModel:
    catalogue = Catalogue.discover()
    given = {"model": str(model), "template": "chatml", "device": "cpu", "max_new_tokens": 6, "temperature": 0}
    return open_chat_model(resolve(CHAT, {**given, **values}, catalogue), catalogue)


@contextlib.contextmanager
def _served(model: LoadedChatModel, **options: Any) -> Iterator[Ask]:
    chosen = ServeOptions(port=0, **options)
    listener = _bound(chosen.host, chosen.port)
    server = uvicorn.Server(server_config(Service(model, "seeing", chosen, None), chosen))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield _asking(f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def opened(model: Path) -> LoadedChatModel:
    return _opened(model)


@pytest.fixture(scope="module")
def ask(opened: LoadedChatModel) -> Iterator[Ask]:
    with _served(opened) as asking:
        yield asking


def test_answers_are_those_of_generate(model: Path, photos: list[Path], lmflow_cli: Cli, tmp_path: Path) -> None:
    def generated(*arguments: object) -> Any:
        result = lmflow_cli("generate", "--model", model, *_FLAGS, *arguments, "--json")
        assert result.status == 0, result.stderr
        return result.json()

    command = [sys.executable, "-m", "lmflow_core", "serve", "--model", str(model), "--port", "0", *_FLAGS]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+", line := process.stderr.readline())
            assert found is not None, line + process.stderr.read()
            ask = _asking(found[0])
            own = [generated("--prompt", "What?", "--image", photo) for photo in photos]
            own.append(generated("--prompt", "What?", "--image", f"{photos[0]},{photos[1]}"))
            asked = [[photo] for photo in photos] + [photos[:2]]
            answers = [ask(*map(_shown, shown), "What?") for shown in asked]
            assert [_text(answer) for answer in answers] == [one["text"] for one in own]
            assert [answer.usage.prompt_tokens for answer in answers] == [one["prompt_tokens"] for one in own]
            assert len({_text(answer) for answer in answers}) > 1
            pieces = ask(_shown(photos[0]), "What?", stream=True)
            assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == own[0]["text"]

            def turn(content: Any) -> list[dict[str, Any]]:
                return [{"role": "user", "content": content}, {"role": "assistant", "content": "Noise."}]

            text = {"type": "text", "text": "See"}
            rows, named = tmp_path / "asked.jsonl", {"type": "image", "image": _held(photos[0].read_bytes())}
            last = {"role": "user", "content": [text, {**named, "image": _held(photos[1].read_bytes())}, text]}
            rows.write_text(json.dumps({"messages": [*turn([named, text]), last]}) + "\n", encoding="utf-8")
            generated("--prompts", rows, "--output", tmp_path / "answers.jsonl")
            (written,) = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
            going_on = ask("See", _shown(photos[1]), "See", before=turn([_shown(photos[0]), text]))
            assert _text(going_on) == json.loads(written)["answer"]
        finally:
            process.terminate()


def _png(width: int, height: int) -> bytes:
    """Return a PNG whose header tells that size, and that has no pixels."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"
    whole = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        *((path, "is refused: give data:image") for path in ("0.png", "/etc/passwd", "../0.png", "~/x.png", "")),
        *((path, "is refused: give data:image") for path in ("file:///etc/passwd", "FILE:0.png", " data:image/png,")),
        *((path, "is refused: give data:image") for path in ("ftp://a.example/x.png", "data:text/plain;base64,AAAA")),
        ("http://a.example/x.png", "none is fetched unless you ask"),
        ("HTTPS://a.example/x.png", "none is fetched unless you ask"),
        ("data:image/png,abc", "an address that holds no image"),
        ("data:image/png;base64,!!!!", "whose base64 is wrong"),
        (_held(b""), "is empty"),
        (_held(b"<html>"), "is an HTML file"),
        (_held(_png(20, 20)), "is damaged"),
        (_held(_png(8000, 8001)), "has 8000 x 8001 pixels, more than the 64,000,000 that are decoded"),
    ],
)
def test_an_image_that_is_refused_is_named(ask: Ask, photos: list[Path], url: str, message: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(_shown(photos[0]), "and", _part(url))
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", "messages")
    assert caught.value.body["message"].startswith("messages[0].content[2]: the image ")  # type: ignore[index]
    assert message in caught.value.message
    assert _text(ask(_shown(photos[0]), "What?", max_tokens=1))


def test_a_path_that_there_is_is_not_read(ask: Ask, photos: list[Path]) -> None:
    for path in (str(photos[0]), photos[0].as_uri()):
        with pytest.raises(openai.BadRequestError, match="is refused"):
            ask(_part(path))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (_part(None), "must be"),
        ({"type": "image_url", "image_url": "data:image/png;base64,AAAA"}, "must be"),
        ({"type": "image_url"}, "must be"),
        (_part("data:image/png;base64,AAAA", detail="high"), "detail may be auto only"),
        (_part("data:image/png;base64,AAAA", sharp=True), "sharp is not supported"),
        ({"type": "input_image", "image_url": "x"}, "must be of the type text or image_url"),
    ],
)
def test_a_part_that_is_no_image(ask: Ask, part: dict[str, Any], message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\]\.content\[0\]") as caught:
        ask(part)
    assert message in caught.value.message


def test_images_are_bounded_in_number_and_size(opened: LoadedChatModel, photos: list[Path]) -> None:
    small = _shown(photos[2])
    size = len(small["image_url"]["url"])
    with _served(opened, max_images=2, max_image_bytes=2 * size, max_body_bytes=2000) as ask:
        assert _text(ask(small, small, max_tokens=1))
        assert len(ask(small, n=2, max_tokens=1).choices) == 2
        with pytest.raises(openai.BadRequestError, match="has 3 images; this server takes 2"):
            ask(small, small, small)
        with pytest.raises(openai.BadRequestError, match="has 1 images for each of 3 answers; this server takes 2"):
            ask(small, n=3)
        with pytest.raises(openai.APIStatusError, match=f"longer than {2 * size} bytes") as caught:
            ask(small, _part(small["image_url"]["url"] + "A"))
        assert caught.value.status_code == 413
        with pytest.raises(openai.APIStatusError, match="2000 bytes beside its images") as caught:
            ask(small, "x" * 2000)
        assert caught.value.status_code == 413


def test_a_decoder_that_takes_no_images_says_so(model: Path, photos: list[Path]) -> None:
    with _served(_opened(model, decoder="prompt-lookup")) as ask:
        with pytest.raises(openai.BadRequestError, match="takes no images") as caught:
            ask(_shown(photos[0]))
        assert (caught.value.param, caught.value.code) == ("messages", None)
        assert _text(ask("What?"))


def test_answers_to_images_and_to_texts_take_turns_and_are_as_alone(ask: Ask, photos: list[Path]) -> None:
    asked = [[_shown(photos[0]), "What?"], ["What?"], [_shown(photos[1]), "What?"], ["Who?"], [_part("x")], ["Why?"]]

    def answered(parts: list[Any]) -> str:
        try:
            return _text(ask(*parts))
        except openai.BadRequestError:
            return "refused"

    alone = [answered(parts) for parts in asked]
    with ThreadPoolExecutor(6) as pool:
        assert [*pool.map(answered, asked * 3)] == alone * 3
    assert alone.count("refused") == 1


def test_images_of_servers_are_fetched_once_and_hold_up_nobody(model: Path, photos: list[Path]) -> None:
    gate, asked = threading.Event(), []

    class Pictures(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/slow":
                gate.wait(30)
            content = photos[0].read_bytes()
            self.send_response(404 if self.path == "/none" else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *values: object) -> None:
            pass

    pictures = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=pictures.serve_forever).start()
    host = f"http://127.0.0.1:{pictures.server_port}"
    opened: Any = _opened(model, fetch_images=True)
    media = opened.model.media
    with _served(opened) as ask, ThreadPoolExecutor(1) as pool:
        with pytest.raises(openai.BadRequestError, match="is within a private network"):
            ask(_part(f"{host}/a"))
        assert asked == []
        media._limits = replace(media._limits, private=True)
        waiting = pool.submit(ask, _part(f"{host}/slow"), "What?")
        own = _text(ask(_shown(photos[0]), "What?"))
        assert not waiting.done()
        gate.set()
        assert _text(waiting.result()) == own
        assert asked == ["/slow"]
        with pytest.raises(openai.BadRequestError, match=r"content\[1\]: the image .*/none' cannot be fetched: .* 404"):
            ask("What?", _part(f"{host}/none"))
    pictures.shutdown()
    pictures.server_close()
