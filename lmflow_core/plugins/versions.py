"""Version ranges of plugins, read without ``packaging``, whose import would cost a quarter of the start-up time."""

from __future__ import annotations

import re
from collections.abc import Iterable

_REQUIREMENT = re.compile(r"^lmflow[-_.]+core(?![\w.-])\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(;.*)?$", re.IGNORECASE)
_CLAUSE = re.compile(r"^(>=|<=|==|!=|~=|>|<)\s*(\d{1,9}(?:\.\d{1,9})*)(\.\*)?$")
_PRE_RELEASE_BOUND = re.compile(r"^((?:>=|<)\s*\d+(?:\.\d+)*)\.?(?:dev|a|b|rc)\d+$")
_EXTRA = re.compile(r"\bextra\s*==")


def core_requirement(requirements: Iterable[str]) -> str | None:
    """Return the version range a distribution asks of ``lmflow-core`` (``">=0.1,<0.2"``), or None.

    A requirement that belongs to an extra, or names a place instead of versions (``@ URL``), asks for no range.
    """
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement.strip())
        if match and not _EXTRA.search(match.group(2) or "") and not match.group(1).startswith("@"):
            return match.group(1).replace(" ", "")
    return None


def satisfies(version: str, specifier: str) -> bool:
    """Whether a release version lies in a range of plain release clauses; an unreadable clause is not met.

    The bounds ``>=0.2rc1`` and ``<0.2.dev0`` are read as ``>=0.2`` and ``<0.2``.
    """
    return all(_meets(_release(version), clause.strip()) for clause in specifier.split(",") if clause.strip())


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return _parts(match.group()) if match else ()


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _meets(have: tuple[int, ...], clause: str) -> bool:
    match = _CLAUSE.match(_PRE_RELEASE_BOUND.sub(r"\1", clause))
    if match is None:
        return False
    operator, text, wildcard = match.groups()
    wanted = _parts(text)
    if wildcard or operator == "~=":
        return _meets_prefix(have, operator, wanted)
    width = max(len(have), len(wanted))
    left, right = _padded(have, width), _padded(wanted, width)
    return {
        ">=": left >= right,
        "<=": left <= right,
        ">": left > right,
        "<": left < right,
        "==": left == right,
        "!=": left != right,
    }[operator]


def _meets_prefix(have: tuple[int, ...], operator: str, wanted: tuple[int, ...]) -> bool:
    if operator == "~=":
        have = _padded(have, len(wanted))
        return have >= wanted and have[: len(wanted) - 1] == wanted[:-1]
    same = _padded(have, len(wanted))[: len(wanted)] == wanted
    return same if operator == "==" else operator == "!=" and not same


def _padded(parts: tuple[int, ...], width: int) -> tuple[int, ...]:
    return parts + (0,) * (width - len(parts))
