"""Fields of rows, and texts with fields in them. Values are put in as they are; nothing in a text is run."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from lmflow_benchmarks.marked import marked
from lmflow_core.api import DataError, Row, printable

# A name, then names or numbers behind dots. What else stands in braces is text, as in LaTeX or JSON.
_SLOT = re.compile(r"\{([^\W\d][\w-]*(?:\.[\w-]+)*)\}")
_JINJA = re.compile(r"\{\{\s*[^\W\d]|\{%")


def check_pattern(pattern: str) -> None:
    """Check a text with fields.

    Raises:
        ValueError: it is written in another language of templates.
    """
    if _JINJA.search(pattern):
        raise ValueError("has fields or statements of Jinja: a field is written in one pair of braces, as {question}")


def has_fields(pattern: str) -> bool:
    """Whether a text has fields in it."""
    return _SLOT.search(pattern) is not None


def filled(pattern: str, row: Row) -> str:
    """Return a text with the values of a row in the place of fields, each marked as data.

    Raises:
        DataError: the row lacks a field, or has one that is no text.
    """
    return _SLOT.sub(lambda slot: marked(field_text(slot[1], row)), pattern)


def field_text(path: str, row: Row) -> str:
    """Return the text of a field.

    Raises:
        DataError: the row lacks it, or it is none.
    """
    text = as_text(field_value(path, row))
    if text is None:
        raise row_error(row, f"the field {path!r} is no text or number; one of its parts is named as in {path}.0")
    return text


def as_text(value: Any) -> str | None:
    """Return a text as it is, and a number or truth value as JSON writes it; None for anything else."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def field_value(path: str, row: Row) -> Any:
    """Return the value of a field; ``a.b`` is the field ``b`` of ``a``, and ``a.0`` the first of a list ``a``.

    Raises:
        DataError: the row lacks it.
    """
    value: Any = row.value
    if path in value:
        return value[path]
    for name in path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise row_error(row, f"there is no field {path!r}{_instead(name, value)}")
    return value


def _instead(name: str, value: Any) -> str:
    if not isinstance(value, Mapping):
        return f", as there is no {name!r} in a list of {len(value)}" if isinstance(value, list) else ""
    near = difflib.get_close_matches(name, [str(key) for key in value], 1)
    known = ", ".join(map(repr, list(value)[:10]))
    return f": did you mean {near[0]!r}?" if near else f"; it has {known}" if known else ""


def row_error(row: Row, problem: str) -> DataError:
    """Return the error of a row."""
    return DataError(printable(problem), file=row.file, row=row.number)
