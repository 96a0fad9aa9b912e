"""Calls of tools, read back from what a model wrote in the form its template gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lmflow_core.contracts.examples import ToolCall
from lmflow_core.templates.description import Tools
from lmflow_core.templates.patterns import around, split_pattern

_PLAIN = {"name": re.compile(r"[\w.:/-]+"), "id": re.compile(r"\w+")}
_DECODER = json.JSONDecoder()


def read_calls(tools: Tools, text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Split an answer into its content and the calls behind it.

    An answer without calls, or with something that is nearly a call, is content as a whole.

    Args:
        tools: the form of calls.
        text: the answer, without the text that stops it.
    """
    for before, after in _frames(tools):
        start = text.find(before + _opening(tools))
        if start < 0:
            continue
        calls, end = _read_all(tools, text, start + len(before))
        if calls and after.startswith(text[end:].strip()):
            return text[:start].removesuffix(tools.before_calls), tuple(calls)
    return text, ()


def _frames(tools: Tools) -> Iterator[tuple[str, str]]:
    """Yield what can stand before and behind the calls; the model may stop before it wrote all of that behind."""
    yield from (around(pattern) for pattern in (tools.turn, tools.calls) if pattern is not None)


def _opening(tools: Tools) -> str:
    return split_pattern(tools.call)[0][0]


def _read_all(tools: Tools, text: str, start: int) -> tuple[list[ToolCall], int]:
    calls: list[ToolCall] = []
    end = start
    while (found := _read_one(tools, text, start)) is not None:
        call, end = found
        calls.append(call)
        if not text.startswith(tools.between_calls + _opening(tools), end):
            break
        start = end + len(tools.between_calls)
    return calls, end


def _read_one(tools: Tools, text: str, at: int) -> tuple[ToolCall, int] | None:
    """Return the call that begins at a position, and where it ends."""
    values: dict[str, object] = {}
    for literal, slot in split_pattern(tools.call):
        if not text.startswith(literal, at):
            return None
        at += len(literal)
        if slot is None:
            continue
        value = _value(slot, text, at)
        if value is None:
            return None
        values[slot], at = value
    arguments = values["arguments"]
    return (ToolCall(str(values["name"]), arguments), at) if isinstance(arguments, dict) else None


def _value(slot: str, text: str, at: int) -> tuple[object, int] | None:
    if slot != "arguments":
        found = _PLAIN[slot].match(text, at)
        return (found[0], found.end()) if found else None
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
