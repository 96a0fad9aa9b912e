"""Places that rows are read from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.spec import Spec
from lmflow_core.errors import SpecError

# Suffixes of the files that the core reads itself.
CORE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Row:
    """One row. ``declared`` is the type an LMFlow file names for all its instances, if it does."""

    file: Path
    number: int
    value: Mapping[str, Any]
    declared: str | None = None


class RowSource(Protocol):
    """Target of a ``SourceSpec``: rows from a file or a hub, as a stream."""

    def rows(self, reference: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a file's path or a hub's name, as JSON values by field.

        Raises:
            DataError: the reference cannot be read.
        """

    def fingerprint(self, reference: str) -> str:
        """Return a digest that changes when a row of the reference does.

        Raises:
            DataError: the reference cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class SourceSpec(Spec):
    """A place rows are read from; ``target`` is called with no argument and satisfies ``RowSource``.

    ``suffixes`` are those of the files it reads, such as ``.parquet``, and none of :data:`CORE_SUFFIXES`; ``hub`` tells
    that it reads ``owner/name``.

    Example::

        @hookimpl
        def lmflow_register_sources():
            yield SourceSpec(
                name="sqlite",
                target="lmflow_sqlite.source:Sqlite",
                summary="Tables of SQLite files.",
                suffixes=(".sqlite",),
            )
    """

    kind: ClassVar[str] = "source"
    contract: ClassVar[type | None] = RowSource
    suffixes: tuple[str, ...] = ()
    hub: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if own := sorted(set(self.suffixes).intersection(CORE_SUFFIXES)):
            raise SpecError(f"{own[0]} files of {self.name!r}: the core reads them")
