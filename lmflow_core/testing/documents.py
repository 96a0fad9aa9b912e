"""Blocks of code in Markdown pages, so that a test can run what a page shows.

A block names the file that it is by ``title="name"`` behind its language. One that a test cannot run has the reason in
a comment directly above it, ``<!-- needs: gpu -->``, or several of them with commas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`]*)$")
_TITLE = re.compile(r'title="([^"]+)"')
_NEEDS = re.compile(r"^<!-- needs: ([\w., -]+?) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        line: where its fence is, from 1.
        language: the first word behind the fence; empty when there is none.
        title: the file that it shows, if it names one.
        needs: what keeps a test from running it.
        text: the code, each line with its end.
    """

    line: int
    language: str
    title: str | None
    needs: frozenset[str]
    text: str


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a Markdown page, in order.

    Raises:
        ValueError: a block does not end.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    found = list(_blocks(lines))
    if found and found[-1].line < 0:
        raise ValueError(f"{page}: a block of code does not end")
    return found


def _blocks(lines: list[str]) -> Iterator[Block]:
    at = 0
    while at < len(lines):
        begins = _FENCE.match(lines[at])
        if begins is None:
            at += 1
            continue
        ends = f"{begins['indent']}{begins['fence']}"
        end = next((n for n in range(at + 1, len(lines)) if lines[n].rstrip() == ends), None)
        info = begins["info"].strip()
        title = _TITLE.search(info)
        inside = [line.removeprefix(begins["indent"]) + "\n" for line in lines[at + 1 : end]]
        yield Block(
            -1 if end is None else at + 1,
            info.partition(" ")[0],
            title[1] if title else None,
            _needs(lines, at),
            "".join(inside),
        )
        at = len(lines) if end is None else end + 1


def _needs(lines: list[str], at: int) -> frozenset[str]:
    """Return the reasons in the comment above a line, with nothing but empty lines between."""
    above = next((line.strip() for line in reversed(lines[:at]) if line.strip()), "")
    told = _NEEDS.match(above)
    return frozenset(word.strip() for word in told[1].split(",")) if told else frozenset()


def commands_of(block: Block) -> list[str]:
    """Return the commands of a block for a shell: lines, those that end with a backslash joined, without comments."""
    joined = block.text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
