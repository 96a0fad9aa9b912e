"""The page in a browser without a screen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.testing.tiny import make_tiny_model

webdriver = pytest.importorskip("selenium.webdriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="needs chromium and its driver"),
]


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
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1400"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def _until(condition: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come about")


def _asked(browser: Any) -> set[str]:
    """Return the origins that the browser asked for something."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {url.split("/")[0] + "//" + url.split("/")[2] for url in sent if url.startswith("http")}


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
    assert _asked(browser) == {address}
    click("reset")
    _until(lambda: typed not in browser.find_element("css selector", "#chat").text)
