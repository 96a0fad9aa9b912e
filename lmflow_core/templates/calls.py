"""Calls of tools, read back from what a model wrote in the form its template gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lmflow_core.contracts.examples import ToolCall
from lmflow_core.templates.arguments import read_arguments
from lmflow_core.templates.description import Tools
from lmflow_core.templates.patterns import around, split_pattern

_SLOTS = {"name": r"(?P<name>[\w.:/-]+)", "id": r"\w+", "index": r"\d+", None: ""}
_DECODER = json.JSONDecoder()


def read_calls(tools: Tools, text: str, offered: Sequence[Mapping[str, Any]] = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Split an answer into its content and the calls behind it.

    An answer without calls, or with something that is nearly a call, is content as a whole.

    Args:
        tools: the form of calls.
        text: the answer, without the text that stops it.
        offered: the tools that may be called, which tell the types of arguments whose form does not.
    """
    for before, after in _frames(tools):
        start = text.find(before + _opening(tools))
        if start < 0:
            continue
        calls, end = _read_all(tools, text, start + len(before), _kinds(offered))
        if calls and after.startswith(text[end:].strip()):
            return text[:start].removesuffix(tools.before_calls), tuple(calls)
    return text, ()


def _frames(tools: Tools) -> Iterator[tuple[str, str]]:
    """Yield what can stand before and behind the calls; the model may stop before it wrote all of that behind."""
    yield from (around(pattern) for pattern in (tools.turn, tools.calls) if pattern is not None)


def _opening(tools: Tools) -> str:
    return split_pattern(tools.call)[0][0]


def _kinds(offered: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the types of each tool's arguments; a schema that tells none is left out."""
    functions = [_mapping(tool.get("function")) or tool for tool in offered]
    return {
        str(function.get("name")): {
            name: str(_mapping(told).get("type"))
            for name, told in _mapping(_mapping(function.get("parameters")).get("properties")).items()
        }
        for function in functions
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _read_all(
    tools: Tools, text: str, start: int, kinds: Mapping[str, Mapping[str, str]]
) -> tuple[list[ToolCall], int]:
    calls: list[ToolCall] = []
    end = start
    while (found := _read_one(tools, text, start, kinds)) is not None:
        call, end = found
        calls.append(call)
        if not text.startswith(tools.between_calls + _opening(tools), end):
            break
        start = end + len(tools.between_calls)
    return calls, end


def _read_one(tools: Tools, text: str, at: int, kinds: Mapping[str, Mapping[str, str]]) -> tuple[ToolCall, int] | None:
    """Return the call that begins at a position, and where it ends."""
    before, after = map(_matching, tools.call.split("{arguments}"))
    head = before.match(text, at)
    if head is None:
        return None
    name = head.groupdict().get("name")
    if tools.argument is not None:
        arguments, end = read_arguments(tools, text, head.end(), kinds.get(name or "", {}))
    else:
        try:
            arguments, end = _DECODER.raw_decode(text, head.end())
        except (ValueError, RecursionError):
            return None
    tail = after.match(text, end)
    if tail is None or not isinstance(arguments, dict):
        return None
    return ToolCall(name or tail["name"], arguments), tail.end()


@lru_cache(maxsize=256)
def _matching(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(re.escape(literal) + _SLOTS[slot] for literal, slot in split_pattern(pattern)))
