"""What the site has beyond ``docs/``: pages of plugins, and links that work in the repository and on the site alike.

MkDocs calls these functions (``hooks`` of ``mkdocs.yml``). Pages are written for the repository, where a link may lead
to any file. On the site, one to a plugin's README leads to its page, and one to what is no page is plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_KINDS = ("plugins", "contrib")
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
_NEEDS = re.compile(r"^<!-- needs: (.+?) -->\n", re.MULTILINE)
_WORDS = {
    "gpu": "a GPU",
    "network": "a network",
    "machines": "several machines",
    "ollama": "Ollama",
    "llama.cpp": "llama.cpp's binding",
    "checkout": "a checkout",
}


def _readmes() -> dict[str, str]:
    """Return the README of each plugin by the page that it is on the site, both as paths with slashes."""
    found = sorted(path for kind in _KINDS for path in _ROOT.glob(f"{kind}/*/README.md"))
    paths = [path.relative_to(_ROOT).as_posix() for path in found]
    return {f"{posixpath.dirname(path)}.md": path for path in paths}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let a folder in the navigation stand for its pages, ``index.md`` first."""
    config.nav = _expanded(config.nav)
    return config


def _expanded(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_expanded(each) for each in entry]
    if isinstance(entry, dict):
        return {title: _expanded(below) for title, below in entry.items()}
    return entry if entry.endswith(".md") else _pages_in(entry)


def _pages_in(folder: str) -> list[str]:
    written = [path.relative_to(_ROOT / "docs").as_posix() for path in (_ROOT / "docs" / folder).glob("*.md")]
    made = [page for page in _readmes() if posixpath.dirname(page) == folder]
    return sorted([*written, *made], key=lambda page: (not page.endswith("index.md"), page))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the READMEs of plugins."""
    for page, readme in _readmes().items():
        files.append(File.generated(config, page, content=(_ROOT / readme).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into those of the site, and comments on blocks into words."""
    here = page.file.src_uri
    origin = _readmes().get(here, f"docs/{here}")
    parts = _CODE.split(markdown)
    # Links are found with the code taken out, as a link's text may hold some.
    code = parts[1::2]
    marked = "".join(part if n % 2 == 0 else f"\0{n // 2}\0" for n, part in enumerate(parts))
    linked = _LINK.sub(lambda found: _link(found[1], found[2], origin, here), marked)
    told = _NEEDS.sub(lambda found: f'<p class="needs">Needs {_needed(found[1])}:</p>\n\n', linked)
    return re.sub("\0(\\d+)\0", lambda found: code[int(found[1])], told)


def _needed(reasons: str) -> str:
    return " and ".join(_WORDS[reason.strip()] for reason in reasons.split(","))


def _link(text: str, target: str, origin: str, here: str) -> str:
    """Return a link of a page that comes from the file ``origin``, as it is on the page ``here``."""
    path, hash_sign, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return f"[{text}]({target})"
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    page = _page_of(wanted)
    if page is None:
        return text
    return f"[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{hash_sign}{anchor})"


def _page_of(path: str) -> str | None:
    for page, readme in _readmes().items():
        if path in (readme, posixpath.dirname(readme)):
            return page
    return path.removeprefix("docs/") if path.startswith("docs/") else None
