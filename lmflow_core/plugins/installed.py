"""The installed plugins, by the metadata of their distributions, which may be damaged or say too much."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

from lmflow_core.errors import printable
from lmflow_core.plugins.wording import one_line

GROUP = "lmflow"
_LONGEST = 60


@dataclass(frozen=True)
class Owner:
    """The distribution a plugin belongs to: its name, its version, the folder it is found in, and what it requires.

    ``problem`` tells what of the metadata cannot be read; what cannot is ``?``.
    """

    name: str = "?"
    version: str = "?"
    folder: str = "?"
    requires: tuple[str, ...] = ()
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def entry_points() -> Iterator[EntryPoint]:
    """Yield the entry points of plugins of every distribution, also of those another of the same name hides.

    Where the list of one cannot be read as UTF-8, an entry point without a value stands for it.
    """
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt")
        except (UnicodeDecodeError, OSError):
            yield _unreadable(distribution)
            continue
        if text and GROUP in text:
            yield from _own(distribution)


def _own(distribution: Distribution) -> Iterator[EntryPoint]:
    try:
        yield from (entry for entry in distribution.entry_points if entry.group == GROUP)
    except Exception:  # a line that is none ends in errors of several kinds
        yield _unreadable(distribution)


def _unreadable(distribution: Distribution) -> EntryPoint:
    name = Path(str(getattr(distribution, "_path", "?"))).stem.partition("-")[0]
    entry = EntryPoint(name, "", GROUP)
    vars(entry)["dist"] = distribution
    return entry


def owner_of(entry: EntryPoint) -> Owner:
    """Return the distribution of an entry point, whatever of its metadata can be read."""
    distribution = entry.dist
    if distribution is None:
        return Owner()
    folder = printable(str(getattr(distribution, "_path", "?")))
    try:
        # Each property of a distribution reads and parses its metadata anew; here that is done once.
        metadata = distribution.metadata
        # A half-removed distribution may have no metadata; both are None then.
        name, version = metadata["Name"] or "?", metadata["Version"] or "?"
        requires = tuple(metadata.get_all("Requires-Dist") or distribution.requires or ())
    except Exception as error:
        return Owner(folder=folder, problem=f"its metadata cannot be read: {one_line(error)}")
    return Owner(_short(name), _short(version), folder, requires)


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
