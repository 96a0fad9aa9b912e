"""Reading the fields of a row, with messages that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmflow_core.api import Message


def text(row: Mapping[str, Any], field: str, *, allow_empty: bool = False) -> str:
    """Return a text field.

    Raises:
        ValueError: it is missing, not text, or empty where it must not be.
    """
    if field not in row:
        raise ValueError(f"the field {field!r} is missing; the row has {', '.join(map(repr, row)) or 'none'}")
    value = row[field]
    if not isinstance(value, str):
        raise ValueError(f"the field {field!r} must be text, not {_type_name(value)}")
    if not allow_empty and not value.strip():
        raise ValueError(f"the field {field!r} is empty")
    return value


def optional_text(row: Mapping[str, Any], field: str) -> str:
    """Return a text field that may be absent, null or empty; then it is ``""``."""
    return text(row, field, allow_empty=True) if row.get(field) is not None else ""


def items(row: Mapping[str, Any], field: str) -> list[Any]:
    """Return a list field.

    Raises:
        ValueError: it is missing or not a list.
    """
    if field not in row:
        raise ValueError(f"the field {field!r} is missing; the row has {', '.join(map(repr, row)) or 'none'}")
    if not isinstance(row[field], list):
        raise ValueError(f"the field {field!r} must be a list, not {_type_name(row[field])}")
    return row[field]


def messages(row: Mapping[str, Any], field: str, *, role: str, content: str, roles: Mapping[str, str]) -> list[Message]:
    """Return the messages in a list of objects with a role field and a content field.

    ``roles`` maps each role as it is written to LMFlow's.

    Raises:
        ValueError: a message is no object, lacks a field, or has an unknown role.
    """
    found = []
    for position, item in enumerate(items(row, field), start=1):
        if not isinstance(item, Mapping):
            raise ValueError(f"message {position} of {field!r} must be an object, not {_type_name(item)}")
        try:
            written = text(item, role)
            if written not in roles:
                raise ValueError(f"unknown role {written!r}; roles are {', '.join(roles)}")
            found.append(Message(roles[written], text(item, content)))
        except ValueError as error:
            raise ValueError(f"message {position} of {field!r}: {error}") from error
    return found


def _type_name(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "text",
    }
    return names.get(type(value), "null")
