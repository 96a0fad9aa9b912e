"""The JSON object of a request, read field by field, so that nothing is overlooked."""

from __future__ import annotations

import json
from typing import Any

from lmflow_serve.errors import invalid

# Templates and schemas are worked through by recursion.
_DEEPEST = 64
_TOO_DEEP = f"lists and objects are within each other to more than {_DEEPEST} levels"


class Fields:
    """The fields of a body, taken one by one; what is left at the end is refused.

    Raises:
        ApiError: the body is no JSON object.
    """

    def __init__(self, body: bytes) -> None:
        self._values = _parse(body)

    def take(self, name: str, *kinds: type) -> Any:
        """Return a field of one of some types, or None when it is missing or null."""
        value = self._values.pop(name, None)
        if value is not None and kinds and not _is_one_of(value, kinds):
            expected = " or ".join(_TYPE_NAMES[kind] for kind in kinds)
            raise invalid(f"'{name}' must be {expected}", name, "invalid_type")
        return value

    def required(self, name: str, *kinds: type) -> Any:
        """Return a field that must be there."""
        value = self.take(name, *kinds)
        if value is None:
            raise invalid(f"missing required parameter: '{name}'", name, "missing_required_parameter")
        return value

    def end(self) -> None:
        """Refuse what nobody took."""
        for name in self._values:
            raise invalid(f"unknown parameter: '{name}'", name, "unknown_parameter")


_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def _is_one_of(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _parse(body: bytes) -> dict[str, Any]:
    try:
        values = parse_json(body)
    except ValueError as error:
        raise invalid(f"the body of the request is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise invalid("the body of the request must be a JSON object")
    return values


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text that can be worked with whatever becomes of it.

    Raises:
        ValueError: it is not valid, is too deep, or says something that JSON of other programs cannot.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _is_deeper(value, _DEEPEST):
        raise ValueError(_TOO_DEEP)
    _check_text(value)
    return value


def _check_text(value: object) -> None:
    """Refuse half a surrogate pair: JSON can hold it, no text can."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half a surrogate pair") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has two fields of one name")
    return values


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects of a value are within each other to more than so many levels."""
    if not isinstance(value, list | dict):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(part, levels - 1) for part in parts)
