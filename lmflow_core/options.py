"""Options: frozen dataclasses whose fields are, at once, command-line flags, run-file keys and documentation.

A field named ``lora_r`` is the flag ``--lora-r`` and the key ``lora_r``. Both ways in end in :func:`build`, so a
value is checked once and the message is the same.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lmflow_core.errors import OptionError, shown, suggestion

T = TypeVar("T")

_TRUE = frozenset(("true", "yes", "on", "1"))
_FALSE = frozenset(("false", "no", "off", "0"))
_REQUIRED = dataclasses.MISSING
_TYPES = "bool, int, float, str, Path, tuples of one of these, and either or None"


def option(
    default: Any = _REQUIRED,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: Sequence[str] = (),
    aliases: Sequence[str] = (),
    affects_result: bool = True,
) -> Any:
    """Declare a field of an options class.

    Args:
        default: the value when nothing is given; without one the option is required.
        help: one sentence for ``--help`` and the reference.
        minimum: smallest value allowed.
        maximum: largest value allowed.
        above: bound that the value must exceed.
        choices: the only values allowed.
        aliases: other names of the field.
        affects_result: whether what a run gives depends on it; where not, a run that goes on may have another value.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "choices": tuple(choices),
        "aliases": tuple(aliases),
        "affects_result": affects_result,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class OptionField:
    """One field of an options class, as read by :func:`fields_of`."""

    name: str
    type: type
    optional: bool
    many: bool
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    above: float | None
    choices: tuple[str, ...]
    aliases: tuple[str, ...]
    affects_result: bool

    @property
    def flag(self) -> str:
        """The flag, as it is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is _REQUIRED

    def parse(self, value: object, where: str) -> Any:
        """Turn a value from a flag or a run file into the field's type and check its range.

        Raises:
            OptionError: the value has the wrong type or lies out of range.
        """
        if value is None or (self.optional and value == "none"):
            if self.optional:
                return None
            raise OptionError(f"{where}: a value is missing")
        if self.many:
            parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
            if not isinstance(parts, list | tuple):
                raise OptionError(f"{where}: expected a list, got {shown(value)}")
            return tuple(self._one(part, where) for part in parts)
        return self._one(value, where)

    def _one(self, value: object, where: str) -> Any:
        parsed = _convert(self.type, value, where)
        if self.choices and parsed not in self.choices:
            hint = suggestion(str(parsed), self.choices)
            raise OptionError(f"{where}: {shown(parsed)} is not one of {', '.join(self.choices)}.{hint}")
        if isinstance(parsed, int | float) and not isinstance(parsed, bool):
            self._check_range(parsed, where)
        return parsed

    def _check_range(self, value: float, where: str) -> None:
        if not math.isfinite(value):
            raise OptionError(f"{where}: {value} is not a finite number")
        if self.minimum is not None and value < self.minimum:
            raise OptionError(f"{where}: {value} is below the smallest value allowed, {self.minimum:g}")
        if self.above is not None and value <= self.above:
            raise OptionError(f"{where}: {value} must be above {self.above:g}")
        if self.maximum is not None and value > self.maximum:
            raise OptionError(f"{where}: {value} is above the largest value allowed, {self.maximum:g}")


def _convert(kind: type, value: object, where: str) -> Any:
    converted = _CONVERTERS[kind](value)
    if converted is None:
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
        raise OptionError(f"{where}: expected {names[kind]}, got {shown(value)}")
    return converted


def _to_bool(value: object) -> bool | None:
    text = str(value).lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _to_int(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return int(str(value))
    except ValueError:
        return None


def _to_float(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(str(value))
    except ValueError:
        return None


def _to_str(value: object) -> str | None:
    return str(value) if isinstance(value, str | int | float | Path) and not isinstance(value, bool) else None


def _to_path(value: object) -> Path | None:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        return None
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return None
    return Path(os.path.expanduser(value))


_CONVERTERS: dict[type, Callable[[object], Any]] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_str,
    Path: _to_path,
}


def fields_of(options: type) -> list[OptionField]:
    """Return the fields of an options class.

    Types may be bool, int, float, str, Path, ``X | None`` and ``tuple[X, ...]``.

    Raises:
        TypeError: a field is of another type, or is not declared with :func:`option`.
    """
    return list(_fields(options))


@functools.cache
def _fields(options: type) -> tuple[OptionField, ...]:
    """Read the fields of a class once: specs share classes, and commands ask for those of all specs."""
    hints = typing.get_type_hints(options)
    return tuple(_field(field, hints[field.name]) for field in dataclasses.fields(options))


def _field(field: dataclasses.Field[Any], hint: Any) -> OptionField:
    kind, optional = _without_none(hint)
    many = typing.get_origin(kind) is tuple
    if many:
        kind = typing.get_args(kind)[0]
    if kind not in _CONVERTERS:
        raise TypeError(f"the field {field.name!r} is of type {hint}; options are {_TYPES}")
    if "help" not in field.metadata:
        raise TypeError(f"the field {field.name!r} is not declared with option()")
    return OptionField(field.name, kind, optional, many, field.default, **field.metadata)


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return ``X`` and whether the hint was ``X | None``."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return (parts[0] if len(parts) == 1 else hint), True


def build(options: type[T], values: Mapping[str, object], where: str = "") -> T:
    """Make an options object from given values, by field name; fields not given keep their defaults.

    Args:
        options: the options class.
        values: values by field name; names the class does not have are ignored (see :func:`refuse_unknown`).
        where: what to put before the field's flag in messages, such as ``"run.yaml: "``.

    Raises:
        OptionError: a value is missing, has the wrong type or lies out of range, or the class refuses it.
    """
    parsed: dict[str, Any] = {}
    for field in fields_of(options):
        if field.name in values:
            parsed[field.name] = field.parse(values[field.name], f"{where}{field.flag}")
        elif field.required:
            raise OptionError(f"{where}{field.flag} is required: {field.help}")
    try:
        return options(**parsed)
    except ValueError as error:
        raise OptionError(f"{where}{error}") from error


def changed(options: T, values: Mapping[str, object]) -> T:
    """Return an options object with other values for some of its fields, checked as :func:`build` does.

    Raises:
        OptionError: a value has the wrong type or lies out of range, or the class refuses it.
    """
    fields = {field.name: field for field in fields_of(type(options))}
    parsed = {name: fields[name].parse(value, name) for name, value in values.items()}
    try:
        return dataclasses.replace(options, **parsed)  # type: ignore[type-var]
    except ValueError as error:
        raise OptionError(str(error)) from error


def to_values(options: Any) -> dict[str, Any]:
    """Return an options object as plain values that a run file can hold."""
    return {field.name: _plain(getattr(options, field.name)) for field in dataclasses.fields(options)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
