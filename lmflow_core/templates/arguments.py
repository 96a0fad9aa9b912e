"""Arguments of calls that stand one by one, not as one JSON object: how a value is written, and read back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from lmflow_core.templates.description import Tools
from lmflow_core.templates.patterns import split_pattern

_PYTHON = {"True": True, "False": False, "None": None}
ESCAPES = (("\\", r"\\"), ("'", r"\'"), ("\n", r"\n"), ("\r", r"\r"))
_KEY = r"[\w.:/$-]+"


def written_value(value: Any, python: bool) -> str:
    """Return how a value that is no text is written: as JSON, or what is neither a list nor a mapping as in Python."""
    if python and not isinstance(value, list | tuple | dict):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def escaped(text: str) -> str:
    """Return a text as it stands between single quotes in Python."""
    for character, written in ESCAPES:
        text = text.replace(character, written)
    return text


def _unescaped(text: str) -> str:
    written = {escape: character for character, escape in ESCAPES}
    return re.sub(r"\\.", lambda found: written.get(found[0], found[0]), text)


def read_arguments(tools: Tools, text: str, at: int, kinds: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """Return the arguments that stand at a position, and where they end.

    Args:
        tools: the form of calls, with one for an argument.
        text: of the answer.
        at: where the first argument begins, if there is any.
        kinds: the type of each argument by its name, where it is known; one that is no text is JSON if it can be.
    """
    found: dict[str, Any] = {}
    while True:
        start = at + len(tools.between_arguments) if found else at
        if found and not text.startswith(tools.between_arguments, at):
            return found, at
        one = _read_one(tools, text, start, kinds)
        if one is None:
            return found, at
        key, found[key], at = one


def _read_one(tools: Tools, text: str, at: int, kinds: Mapping[str, str]) -> tuple[str, Any, int] | None:
    for pattern, is_text in _patterns(tools):
        match = _compiled(pattern, tools).match(text, at)
        if match is None:
            continue
        key, value = match["key"], match["value"]
        if is_text or (tools.text_argument is None and kinds.get(key) == "string"):
            return key, _unescaped(value) if tools.escaped_texts else value, match.end()
        return key, _parsed(value, tools.python_values), match.end()
    return None


def _patterns(tools: Tools) -> Iterator[tuple[str, bool]]:
    if tools.text_argument is not None:
        yield tools.text_argument, True
    if tools.argument is not None:
        yield tools.argument, False


@lru_cache(maxsize=256)
def _compiled(pattern: str, tools: Tools) -> re.Pattern[str]:
    """Return what matches an argument: its value ends where another argument or the rest of the call follows."""
    slots = {"key": f"(?P<key>{_KEY})", "value": "(?P<value>.*?)", None: ""}
    written = "".join(re.escape(literal) + slots[slot] for literal, slot in split_pattern(pattern))
    begins = "|".join(_beginning(other) for other, _ in _patterns(tools))
    after = re.escape(tools.call.split("{arguments}")[1].split("{")[0])
    return re.compile(f"{written}(?={re.escape(tools.between_arguments)}(?:{begins})|{after})", re.DOTALL)


def _beginning(pattern: str) -> str:
    (before, _), (between, _), *_ = split_pattern(pattern)
    return re.escape(before) + _KEY + re.escape(between)


def _parsed(text: str, python: bool) -> Any:
    if python and text in _PYTHON:
        return _PYTHON[text]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str) else value
