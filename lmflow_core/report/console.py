"""What people read: progress and notes on stderr, results on stdout; a terminal shows all of it and obeys none.

Answers, data, names and errors may hold what a terminal obeys: escape codes that move the cursor, set the title or the
clipboard, and characters that turn the order of others around. A terminal is given them spelled out, a pipe or a file
as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO, TypeVar

T = TypeVar("T")

# Line breaks and tabs are left; a carriage return alone would let the rest of a line be written over.
_OBEYED = re.compile(r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return a text with the characters that a terminal obeys spelled out, such as ``\\u001b``."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _for(stream: TextIO, text: str) -> str:
    return visible(text) if stream.isatty() else text


def show(text: object = "", *, end: str = "\n", color: str = "", bold: bool = False, dim: bool = False) -> None:
    """Write a result, or a piece of it, to stdout; styles are seen on a terminal only."""
    shown = _for(sys.stdout, f"{text}")
    if sys.stdout.isatty() and (color or bold or dim):
        from click import style

        shown = style(shown, fg=color or None, bold=bold or None, dim=dim or None)
    print(shown, end=end, flush=True)


def tell(text: str) -> None:
    """Write to stderr."""
    print(_for(sys.stderr, text), file=sys.stderr)


def note(message: str) -> None:
    """Tell the user something in passing."""
    tell(f"lmflow: {message}")


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield items under a progress bar, which shows only on a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description, total=total, console=Console(stderr=True), transient=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as aligned text; the last column is not padded."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    widths[-1] = 0
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def pairs(values: Iterable[tuple[str, object]]) -> str:
    """Return name and value in two aligned columns."""
    listed = [(name, str(value)) for name, value in values]
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in listed)
