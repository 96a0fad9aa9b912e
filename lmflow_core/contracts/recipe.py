"""What the result of a training run depends on, kept with its checkpoints and compared before a run goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lmflow_core.errors import RequestError


@dataclass(frozen=True)
class Recipe:
    """What the result of a training run depends on, by the name its user knows it by. Values are those of JSON.

    Attributes:
        fixed: what a run must have in common with the checkpoint that it goes on from.
        explained: options that decide a value of ``fixed``, under its name: they count only where the value differs.
        length: what tells how long the run is; it may change.
    """

    fixed: Mapping[str, Any] = field(default_factory=dict)
    explained: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    length: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON has it."""
        return asdict(self)

    def check(self, kept: object, checkpoint: str, *, anyway: bool = False) -> list[str]:
        """Compare with the recipe of a checkpoint, as :meth:`as_dict` gave it; return what the user should know.

        Args:
            kept: of the checkpoint.
            checkpoint: its name, for the message.
            anyway: tell what differs instead of refusing it.

        Raises:
            RequestError: something differs on which the result depends.
        """
        before = _from_json(kept)
        found = ["it does not tell how it was trained"] if before is None else list(self._differences(before))
        if found and not anyway:
            raise RequestError(
                f"{checkpoint} was trained otherwise: {'; '.join(found)}. Go on with what it was trained with, "
                "add --resume-anyway to go on all the same, or leave out --resume and add --overwrite to start anew"
            )
        return found + ([] if before is None else list(_changes(before.length, self.length)))

    def _differences(self, before: Recipe) -> Iterator[str]:
        for name in _names(before.fixed, self.fixed):
            if before.fixed.get(name) != self.fixed.get(name):
                yield _change(name, before.fixed, self.fixed)
                yield from _changes(before.explained.get(name, {}), self.explained.get(name, {}))


def _from_json(kept: object) -> Recipe | None:
    names = ("fixed", "explained", "length")
    if not isinstance(kept, Mapping) or not all(isinstance(kept.get(name), Mapping) for name in names):
        return None
    return Recipe(*(kept[name] for name in names))


def _names(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [*now, *(name for name in before if name not in now)]


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in _names(before, now):
        if before.get(name) != now.get(name):
            yield _change(name, before, now)


def _change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{name} was {_told(before, name)}, is {_told(now, name)}"


def _told(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return "not given" if name.startswith("--") else "absent"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
