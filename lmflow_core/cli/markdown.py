"""Markdown on a terminal while it is still being written."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters that a terminal obeys; an answer is text and must not move the cursor or set the title.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


def print_markdown(pieces: Iterable[str]) -> None:
    """Print Markdown as it comes: whole blocks for good, the one that is being written again and again."""
    from rich.console import Console
    from rich.live import Live
    from rich.markdown import Markdown

    console = Console()
    pending = ""
    try:
        with Live(console=console, transient=True, refresh_per_second=8) as live:
            for piece in pieces:
                whole, pending = split_blocks(pending + _OBEYED.sub("", piece))
                if whole:
                    console.print(Markdown(whole))
                live.update(Markdown(pending))
            live.update("")
    finally:
        console.print(Markdown(pending))


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown behind its last blank line outside of a fenced block: what is whole, and the rest."""
    at = len(text)
    while (at := text.rfind("\n\n", 0, at)) >= 0:
        if len(_FENCE.findall(text, 0, at)) % 2 == 0:
            return text[: at + 2], text[at + 2 :]
    return "", text
