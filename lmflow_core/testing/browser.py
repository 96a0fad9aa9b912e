"""A browser without a screen, for tests of pages: Chromium, driven by selenium."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MISSING = not (shutil.which("chromium") and shutil.which("chromedriver"))
_SWITCHES = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage")


@contextlib.contextmanager
def open_browser(downloads: Path, width: int = 1200, height: int = 1400) -> Iterator[Any]:
    """Give a ``selenium.webdriver.Chrome`` that writes down what it asks for; it is closed at the end.

    Args:
        downloads: a folder for what is downloaded.
        width: of the window, in pixels.
        height: of the window, in pixels.
    """
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (*_SWITCHES, f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def origins_asked(driver: Any) -> set[str]:
    """Return the origins, as ``http://host:port``, that a browser asked for something since this was last called."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    parts = [urlsplit(url) for url in sent if url.startswith("http")]
    return {f"{part.scheme}://{part.netloc}" for part in parts}
