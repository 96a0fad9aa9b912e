"""What a flag of the original LMFlow means here: values, nothing, or a refusal that names what takes its place."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.cli.lmflow_names import FALSE, SWITCHES, TRANSLATED, TRUE, Values
from lmflow_core.errors import OptionError


@dataclass(frozen=True)
class Meaning:
    """What a flag means here: values by option, or, where it has no effect, why."""

    values: Values
    note: str | None = None


def is_known(command: str, name: str) -> bool:
    """Whether the original has a flag that is to be translated, noted or refused."""
    return (
        name in SWITCHES or name in TRANSLATED or any(_reason(kind, command, name) for kind in ("ignored", "refused"))
    )


def known_names() -> set[str]:
    """Return the names that lead to an option of ours, for suggestions."""
    return {*SWITCHES, *TRANSLATED}


def meaning(command: str, name: str, given: str | None) -> Meaning:
    """Return what a known flag means.

    Args:
        command: of ``lmflow``.
        name: of the flag, with underscores.
        given: its value; None where it has none.

    Raises:
        OptionError: it is refused, or lacks its value; the message names what takes its place.
    """
    if refused := _reason("refused", command, name):
        raise OptionError(f"--{name} {refused}")
    if ignored := _reason("ignored", command, name):
        return Meaning({}, ignored)
    if name in SWITCHES:
        given = given or "true"
        if given.lower() not in TRUE | FALSE:
            raise OptionError(f"--{name}: expected true or false, got {given!r}")
        return Meaning(SWITCHES[name] if given.lower() in TRUE else {})
    if given is None:
        raise OptionError(f"--{name} needs a value")
    try:
        return Meaning(TRANSLATED[name](given))
    except ValueError as error:
        raise OptionError(f"--{name} {given} {error}") from error


def check_value(name: str, given: object) -> None:
    """Check that a flag of the original, which is another name of an option of ours, has a value that is known here.

    Raises:
        OptionError: it has one that the original knows alone; the message names what takes its place.
    """
    refused = notes()["values"].get(name, {}).get(str(given).lower())
    if refused:
        raise OptionError(f"--{name} {given} {refused}")


def _reason(kind: str, command: str, name: str) -> str | None:
    told = notes()[kind]
    reason: str | None = told.get(command, {}).get(name) or told["*"].get(name)
    return reason


@functools.cache
def notes() -> dict[str, dict[str, dict[str, Any]]]:
    """Return, by command (``*`` is any), the flags without effect and why, and the refused and what replaces them.

    Values that are refused, of flags that are taken else, are under ``values``. All are read when a flag is met that is
    not called as ours are.
    """
    text = Path(__file__).with_name("_lmflow_flags.json").read_text(encoding="utf-8")
    told: dict[str, dict[str, dict[str, Any]]] = json.loads(text)
    return told
