"""Every link within the repository leads to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGES = [
    *sorted(_ROOT.glob("*.md")),
    *sorted((_ROOT / "docs").rglob("*.md")),
    *sorted(path for kind in ("plugins", "contrib", "benchmarks", "examples") for path in _ROOT.glob(f"{kind}/**/*.md")
            if "node_modules" not in path.parts),
]  # fmt: skip
_CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def _links(page: Path) -> Iterator[str]:
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    return (target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target))


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made of their words here and on the site."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in _HEADING.findall(text))
    return {re.sub(r"\s+", "-", heading.strip()) for heading in words}


def test_pages_are_found() -> None:
    assert len(_PAGES) > 60


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.relative_to(_ROOT).as_posix())
def test_its_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _links(page):
        path, _, anchor = target.partition("#")
        wanted = (page.parent / path) if path else page
        if not wanted.exists():
            broken.append(f"{target}: no such file")
        elif anchor and (wanted.suffix != ".md" or anchor not in _anchors(wanted)):
            broken.append(f"{target}: no such heading")
    assert broken == []
