"""Images on the page, in a browser without a screen."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from lmflow_core.config.request import resolve
from lmflow_core.config.schema import CHAT
from lmflow_core.generation.chat_model import ChatModelOpener
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.browser import MISSING, open_browser, origins_asked
from lmflow_core.testing.seeing import make_seeing_model
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_webui.command import make_app
from lmflow_webui.conversations import WebChat

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING, reason="needs chromium and its driver")]
_PASTE = """
const holder = new DataTransfer();
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
holder.items.add(new File([bytes], "pasted.png", {type: "image/png"}));
document.querySelector("#message textarea").dispatchEvent(
    new ClipboardEvent("paste", {clipboardData: holder, bubbles: true, cancelable: true}));
"""


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    noise, paths = np.random.default_rng(0), [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        Image.fromarray(noise.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[Any, WebChat, str]]:
    """Give a browser that shows the page, and what the page talks with."""
    model = make_seeing_model(tmp_path / "seeing", "llava")
    catalogue = Catalogue.discover()
    values = {"model": str(model), "template": "chatml", "max_new_tokens": 6, "device": "cpu"}
    chat = WebChat(ChatModelOpener(resolve(CHAT, values, catalogue), catalogue))
    with socket.create_server(("127.0.0.1", 0)) as listener, open_browser(tmp_path) as browser:
        app = make_app(chat, local=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        browser.get(address)
        yield browser, chat, address
        server.should_exit = True
        thread.join(60)


def _until(condition: Any, seconds: float = 40) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come about")


def test_images_are_chosen_pasted_and_shown(page: tuple[Any, WebChat, str], photos: list[Path], tmp_path: Path) -> None:
    browser, _, address = page

    def found(selector: str) -> list[Any]:
        return list(browser.find_elements("css selector", selector))

    def status() -> str:
        return str(found("#status textarea")[0].get_property("value"))

    chooser = _until(lambda: found("#picture-file"))[0]
    time.sleep(1)
    chooser.send_keys(str(photos[0]))
    _until(lambda: len(found("#picture-shown img")) == 1)
    pasted = base64.b64encode(photos[1].read_bytes()).decode()
    browser.execute_script(_PASTE, pasted)
    _until(lambda: len(found("#picture-shown img")) == 2)
    found("#message textarea")[0].send_keys("What <b>is</b> it?")
    found("#send")[0].click()
    _until(lambda: "tokens/s" in status())
    shown = _until(lambda: found("#chat img[src^='data:image/png']"))
    assert len(shown) == 2
    assert shown[1].get_attribute("src") == f"data:image/png;base64,{pasted}"
    assert all(browser.execute_script("return arguments[0].naturalWidth", image) == 30 for image in shown)
    assert not found("#chat b")
    _until(lambda: not found("#picture-shown img"))
    found("#save")[0].click()
    (row,) = _until(lambda: [*tmp_path.glob("*.jsonl")])
    content = json.loads(row.read_text(encoding="utf-8"))["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image", "image", "text"]
    assert content[1]["image"] == f"data:image/png;base64,{pasted}"
    assert origins_asked(browser) == {address}


def test_a_model_of_text_has_no_chooser(page: tuple[Any, WebChat, str], photos: list[Path], tmp_path: Path) -> None:
    browser, chat, address = page
    _until(lambda: browser.find_elements("css selector", "#picture-file"))
    chat.choose(model=str(make_tiny_model(tmp_path / "blind")))
    browser.get(address)
    _until(lambda: browser.find_elements("css selector", "#message textarea"))
    _until(lambda: not browser.find_elements("css selector", "#picture-file"))
    browser.execute_script(_PASTE, base64.b64encode(photos[0].read_bytes()).decode())
    time.sleep(0.5)
    assert browser.find_element("css selector", "#pictures textarea").get_property("value") == ""
