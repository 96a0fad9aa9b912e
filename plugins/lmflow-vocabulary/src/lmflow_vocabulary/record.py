"""What an extended model tells of its extension, in its configuration, so that it stays in all that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KEY = "lmflow_vocabulary"


@dataclass(frozen=True)
class Extension:
    """An extension of a vocabulary.

    Attributes:
        first: id of the first new token.
        tokens: how many there are.
        base_tokens: ids of the vocabulary that the first extension of all went on from.
        base_merges: its merges; None where it has none of its own.
    """

    first: int
    tokens: int
    base_tokens: int
    base_merges: int | None

    def stored(self) -> dict[str, int | None]:
        """Return what stands in the configuration."""
        return asdict(self)


def read_extension(config: Mapping[str, Any]) -> Extension | None:
    """Return the last extension that a configuration tells of, if it does."""
    value = config.get(KEY)
    if not isinstance(value, Mapping):
        return None
    numbers = {name: value.get(name) for name in ("first", "tokens", "base_tokens")}
    merges = value.get("base_merges")
    if not all(_is_count(number) for number in numbers.values()) or not (merges is None or _is_count(merges)):
        return None
    return Extension(**numbers, base_merges=merges)  # type: ignore[arg-type]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
