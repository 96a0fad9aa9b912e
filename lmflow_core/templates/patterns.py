"""Texts with slots, of which a conversation template is made."""

from __future__ import annotations

import re
from functools import lru_cache

_SLOT = re.compile(r"\{(content|json|tools|tool|function|elements|calls|name|arguments|key|value|id|index|results)\}")


@lru_cache(maxsize=1024)
def split_pattern(pattern: str) -> tuple[tuple[str, str | None], ...]:
    """Return each text of a pattern with the name of the slot behind it; the last has none."""
    pieces = _SLOT.split(pattern)
    return tuple(zip(pieces[::2], [*pieces[1::2], None], strict=True))


def around(pattern: str) -> tuple[str, str]:
    """Return the texts before the first slot of a pattern and behind it."""
    before, _, after = _SLOT.split(pattern, maxsplit=1)
    return before, after


def slots(pattern: str) -> list[str]:
    """Return the names of a pattern's slots, in order."""
    return _SLOT.findall(pattern)
