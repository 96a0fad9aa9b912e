"""Markdown on a terminal while it is still being written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from lmflow_core.report.console import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


def print_markdown(pieces: Iterable[str]) -> None:
    """Print Markdown as it comes: whole blocks for good, the one that is being written again and again."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    pending = ""
    try:
        with Live(console=console, transient=True, refresh_per_second=8) as live:
            for piece in pieces:
                whole, pending = split_blocks(pending + visible(piece))
                if whole:
                    console.print(_Shown(whole))
                live.update(_Shown(pending))
            live.update("")
    finally:
        console.print(_Shown(pending))


class _Shown:
    """Markdown whose links show where they lead, and whose entities and addresses spell nothing that is obeyed."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.markdown import Markdown
        from rich.segment import Segment

        for segment in console.render(Markdown(self._text, hyperlinks=False), options):
            yield Segment(visible(segment.text), segment.style, segment.control)


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown behind its last blank line outside of a fenced block: what is whole, and the rest."""
    at = len(text)
    while (at := text.rfind("\n\n", 0, at)) >= 0:
        if len(_FENCE.findall(text, 0, at)) % 2 == 0:
            return text[: at + 2], text[at + 2 :]
    return "", text
