"""The page in a browser without a screen."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lmflow_core.config.request import resolve
from lmflow_core.config.schema import CHAT
from lmflow_core.contracts.decoder import DecodeStep
from lmflow_core.generation.chat_model import ChatModelOpener
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.browser import MISSING, open_browser, origins_asked
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_transformers.sampling import SamplingDecoder
from lmflow_webui.command import make_app
from lmflow_webui.conversations import WebChat

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING, reason="needs chromium and its driver")]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    # So many layers that an answer takes its time, and can be stopped before it ends.
    model = make_tiny_model(tmp_path / "model", layers=40)
    line = [sys.executable, "-m", "lmflow_core", "webui", "--model", str(model), "--port", "0"]
    line += ["--temperature", "1", "--max-new-tokens", "230"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for told in process.stderr:
        if "the page is at " in told:
            break
    yield told.split("the page is at ")[1].split(";")[0]
    process.terminate()
    process.communicate(timeout=20)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with open_browser(tmp_path) as driver:
        yield driver


def _until(condition: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come about")


HOSTILE = (
    "<script>window.hurt=1</script><img src=x onerror='window.hurt=1'><svg onload=window.hurt=1>",
    "<iframe srcdoc='<script>parent.hurt=1</script>'></iframe><object data=http://evil.example/></object>",
    "[click](javascript:window.hurt=1) <a href='javascript:window.hurt=1' autofocus onfocus=window.hurt=1>x</a>",
    "![x](http://evil.example/x.png) <img src=http://evil.example/x.png> <link rel=stylesheet href=//evil.example/x>",
    "<style>body{background:url(http://evil.example/x)}</style><meta http-equiv=refresh content='0;url=http://evil.example'>",
    "&lt;script&gt;window.hurt=1&lt;/script&gt; &#60;img src=x onerror=window.hurt=1&#62;",
    "$\\href{javascript:window.hurt=1}{x}$ $$\\includegraphics{http://evil.example/x.png}$$",
    "```html\n<img src=x onerror=window.hurt=1>\n```\n</div></div></script><script>window.hurt=1</script>",
    "```mermaid\ngraph TD; A[<img src=x onerror=window.hurt=1>]\n```\n<base href=http://evil.example/>",
    "\x1b]0;x\x07\x1b[2J \x01\x7f\x9b <\x00script>window.hurt=1</script> \u202edlrow\u202c \u2066x\u2069 \u2028",
    "{{constructor.constructor('window.hurt=1')()}} {@html '<img src=x onerror=window.hurt=1>'} ${window.hurt=1}",
    "<form action=http://evil.example><button autofocus>send</button></form><input onfocus=window.hurt=1 autofocus>",
    "a" * 200_000,
    "<b>" * 20_000,
)


@pytest.fixture
def hostile_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve a page whose model says what it is told to; gives its address and what tells the model."""
    model = make_tiny_model(tmp_path / "model", max_position_embeddings=2_000_000)
    telling = {"answer": ""}

    def decode(decoder: Any, model: Any, request: Any) -> Iterator[DecodeStep]:
        ids = model.tokenizer.encode([telling["answer"]], [True])[0]
        for at in range(0, len(ids), 5000):
            yield DecodeStep(tuple(ids[at : at + 5000]))

    monkeypatch.setattr(SamplingDecoder, "decode", decode)
    catalogue = Catalogue.discover()
    values = {"model": str(model), "max_new_tokens": 500_000}
    app = make_app(WebChat(ChatModelOpener(resolve(CHAT, values, catalogue), catalogue)), local=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", telling
        server.should_exit = True
        thread.join(60)


_TYPE = """
const box = document.querySelector("#message textarea");
Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box, arguments[0]);
box.dispatchEvent(new Event("input", {bubbles: true}));
"""
# Elements that could only come of a text: the page itself has such things in its buttons alone.
_MADE = "#chat :is(script, iframe, object, embed, form, input, a, base, meta, link, style, b, img):not(button *)"


def test_hostile_texts_are_shown_and_do_nothing(browser: Any, hostile_page: tuple[str, dict[str, str]]) -> None:
    address, telling = hostile_page
    browser.get(address)
    _until(lambda: browser.find_elements("css selector", "#message textarea"))

    def status() -> str:
        return str(browser.find_element("css selector", "#status textarea").get_property("value"))

    for text in HOSTILE:
        telling["answer"] = text
        browser.execute_script(_TYPE, text)
        time.sleep(0.3)
        browser.find_element("css selector", "#send").click()
        _until(lambda: "tokens/s" in status())
        shown = browser.find_element("css selector", "#chat").get_property("textContent")
        said = re.sub(r"[\s\x00\x0d\ufffd]", "", text)
        assert re.sub(r"[\s\x00\x0d\ufffd]", "", shown).count(said) >= 2, text[:80]
        assert [e.get_attribute("outerHTML") for e in browser.find_elements("css selector", _MADE)] == [], text[:80]
        browser.find_element("css selector", "#reset").click()
        _until(lambda: not status())
    assert browser.execute_script("return window.hurt") is None
    assert browser.title == "LMFlow"
    assert browser.current_url.startswith(address)
    assert origins_asked(browser) == {address}


def test_one_talks_stops_regenerates_and_downloads(browser: Any, address: str, tmp_path: Path) -> None:
    browser.get(address)
    message = _until(lambda: browser.find_elements("css selector", "#message textarea"))[0]

    def status() -> str:
        return str(browser.find_element("css selector", "#status textarea").get_property("value"))

    def click(name: str) -> None:
        browser.find_element("css selector", f"#{name}").click()

    typed = "<b id=bold>hello</b> <img id=hurt src=x onerror=document.title='hurt'> **you**"
    message.send_keys(typed)
    click("send")
    _until(lambda: status().endswith("…"))
    click("stop")
    _until(lambda: "stopped" in status())
    assert "tokens/s" in status()
    assert typed in browser.find_element("css selector", "#chat").text
    assert not browser.find_elements("css selector", "#bold, #hurt")
    assert browser.title != "hurt"
    click("again")
    _until(lambda: status().endswith("…"))
    _until(lambda: "tokens/s" in status() and "stopped" not in status())
    click("save")
    (row,) = _until(lambda: [*tmp_path.glob("*.jsonl")])
    said = json.loads(row.read_text(encoding="utf-8"))["messages"]
    assert [turn["role"] for turn in said] == ["user", "assistant"]
    assert said[0]["content"] == typed
    assert origins_asked(browser) == {address}
    click("reset")
    _until(lambda: typed not in browser.find_element("css selector", "#chat").text)
