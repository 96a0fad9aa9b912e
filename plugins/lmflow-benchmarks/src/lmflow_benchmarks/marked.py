"""Texts in which what comes from data is marked, so that none of it becomes a control token.

A mark is a noncharacter of Unicode, which no text holds. It goes through a chat template as any letter does.
"""

from __future__ import annotations

from lmflow_core.api import Segment

_BEGIN, _END = "\ufdd0", "\ufdd1"
_UNMARKED = str.maketrans("", "", _BEGIN + _END)


def marked(text: str) -> str:
    """Return a text from data with marks around it; white space at its ends stays outside, as templates trim."""
    text = unmarked(text)
    inner = text.strip()
    if not inner:
        return text
    before, _, behind = text.partition(inner)
    return f"{before}{_BEGIN}{inner}{_END}{behind}"


def unmarked(text: str) -> str:
    """Return a text without marks."""
    return text.translate(_UNMARKED)


def segments(text: str) -> list[Segment]:
    """Return the pieces of a text, of which those from data may not hold control tokens.

    Raises:
        ValueError: a template left out one end of what is marked.
    """
    found: list[Segment] = []
    for number, piece in enumerate(text.split(_BEGIN)):
        data, ends, rest = piece.partition(_END)
        if bool(ends) is (number == 0) or _END in rest:
            raise ValueError("only a part of a text from data is left, so that its control tokens cannot be told")
        pieces = [Segment(data), Segment(rest, control=True)] if ends else [Segment(data, control=True)]
        found += [segment for segment in pieces if segment.text]
    return found
