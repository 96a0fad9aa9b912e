"""The site of the documentation: it builds without a warning, needs no other host, and is read on a phone, too."""

from __future__ import annotations

import functools
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.testing.browser import MISSING, open_browser, origins_asked

_ROOT = Path(__file__).parents[2]
# What a page loads by itself, unlike a link that a reader may follow.
_LOADED = re.compile(r"""<(?:script|img|iframe|link(?=[^>]*rel="?(?:stylesheet|preload|preconnect|icon)))[^>]*?"""
                     r"""(?:src|href)="?(https?:)?//""")  # fmt: skip
_WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
_ACROSS = "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
_WIDE = ("index.html", "architecture.html", "reference/commands/finetune.html", "coming-from-lmflow.html")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(line, cwd=_ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    written = {path.relative_to(_ROOT / "docs").with_suffix(".html") for path in (_ROOT / "docs").rglob("*.md")}
    plugins = [
        path.parent.relative_to(_ROOT) for kind in ("plugins", "contrib") for path in _ROOT.glob(f"{kind}/*/*.md")
    ]
    made = {path.relative_to(site) for path in site.rglob("*.html")}
    assert written | {path.with_name(f"{path.name}.html") for path in plugins} <= made
    loading = [str(path) for path in made if _LOADED.search((site / path).read_text(encoding="utf-8"))]
    assert loading == []


def test_a_page_of_a_plugin_links_within_the_site_and_a_block_says_what_it_needs(site: Path) -> None:
    page = (site / "how-to" / "learn-from-preferences.html").read_text(encoding="utf-8")
    assert 'href="../contrib/lmflow-contrib-slic.html"' in page
    needing = (site / "how-to" / "use-many-processes.html").read_text(encoding="utf-8")
    source = (_ROOT / "docs" / "how-to" / "use-many-processes.md").read_text(encoding="utf-8")
    assert needing.count('<p class="needs">') == source.count("<!-- needs: ") > 1
    assert "Needs several machines:" in needing


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with open_browser(tmp_path) as driver:
        yield driver


@pytest.mark.skipif(MISSING, reason="needs chromium and its driver")
@pytest.mark.parametrize("size", _WIDTHS)
def test_it_is_read_without_scrolling_sideways(size: str, address: str, browser: Any) -> None:
    width, height = _WIDTHS[size]
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    for page in _WIDE:
        browser.get(f"{address}/{page}")
        heading = browser.find_element("css selector", "h1")
        assert heading.is_displayed()
        assert heading.text.strip("¶") != ""
        inner, outer = browser.execute_script(_ACROSS)
        assert inner <= outer <= width, page
    browser.get(f"{address}/index.html")
    assert browser.title == "LMFlow"
    box = browser.find_element("css selector", "h1").rect
    assert 0 <= box["x"] <= box["x"] + box["width"] <= width
    assert box["y"] + box["height"] < height
    assert origins_asked(browser) == {address}
