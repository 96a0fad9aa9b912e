"""Reading the fields of a row, with messages that name the field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def field(row: Mapping[str, Any], name: str) -> Any:
    """Return a field.

    Raises:
        ValueError: it is missing.
    """
    if name not in row:
        raise ValueError(f"the field {name!r} is missing; the row has {', '.join(map(repr, row)) or 'none'}")
    return row[name]


def text(row: Mapping[str, Any], name: str, *, allow_empty: bool = False) -> str:
    """Return a text field.

    Raises:
        ValueError: it is missing, not text, or empty where it must not be.
    """
    value = field(row, name)
    if not isinstance(value, str):
        raise ValueError(f"the field {name!r} must be text, not {type_name(value)}")
    if not allow_empty and not value.strip():
        raise ValueError(f"the field {name!r} is empty")
    return value


def optional_text(row: Mapping[str, Any], name: str) -> str:
    """Return a text field that may be absent, null or empty; then it is ``""``."""
    return text(row, name, allow_empty=True) if row.get(name) is not None else ""


def number(row: Mapping[str, Any], name: str) -> float:
    """Return a numeric field.

    Raises:
        ValueError: it is missing, not a number, or beyond what a float holds.
    """
    value = field(row, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the field {name!r} must be a number, not {type_name(value)}")
    try:
        found = float(value)
    except OverflowError as error:
        raise ValueError(f"the field {name!r} is a number too large") from error
    if not math.isfinite(found):
        raise ValueError(f"the field {name!r} is {found}, which is no number to learn from")
    return found


def truth(row: Mapping[str, Any], name: str) -> bool:
    """Return a field that is true or false.

    Raises:
        ValueError: it is missing or something else.
    """
    value = field(row, name)
    if not isinstance(value, bool):
        raise ValueError(f"the field {name!r} must be true or false, not {type_name(value)}")
    return value


def items(row: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list field.

    Raises:
        ValueError: it is missing or not a list.
    """
    value = field(row, name)
    if not isinstance(value, list):
        raise ValueError(f"the field {name!r} must be a list, not {type_name(value)}")
    return value


def texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a field that holds one text or more.

    Raises:
        ValueError: it is missing, empty, or an item is not text.
    """
    value = field(row, name)
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(item, str) and item for item in found):
        raise ValueError(f"the field {name!r} must hold texts")
    return tuple(found)


def mapping(value: object, what: str) -> Mapping[str, Any]:
    """Return an object.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be an object, not {type_name(value)}")
    return value


def parsed(value: object, what: str) -> Any:
    """Return a value that may be written as JSON inside a text, as tools and their arguments often are.

    Raises:
        ValueError: the text is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} must be JSON, and the text {value[:40]!r} is not") from error


def type_name(value: object) -> str:
    """Return the JSON name of a value's type."""
    names = {
        dict: "an object",
        list: "a list",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "text",
    }
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
