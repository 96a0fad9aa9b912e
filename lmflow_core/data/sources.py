"""Where rows come from: files the core reads, files that plugins read, and names on a hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmflow_core.contracts.source import CORE_SUFFIXES, Row, RowSource, SourceSpec
from lmflow_core.data.files import data_files, is_hub_name, suffix
from lmflow_core.data.rows import OnError, read_rows
from lmflow_core.errors import DataError
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import returned

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """One file or hub name. ``reader`` is a plugin's, or None where the core reads it."""

    path: Path
    reader: RowSource | None = None

    def rows(self, on_error: OnError) -> Iterator[Row]:
        """Yield the rows; ``on_error`` is told of what is none.

        Raises:
            DataError: the source cannot be read.
        """
        if self.reader is None:
            yield from read_rows(self.path, on_error)
            return
        rows = returned(self.reader.rows(self.path.as_posix()), Iterator, self.reader, "rows")
        for number, value in enumerate(rows, start=1):
            value = returned(value, Mapping, self.reader, "rows")
            yield Row(self.path, number, {name: cell for name, cell in value.items() if cell is not None})

    def fingerprint(self) -> str:
        """Return a digest that changes when a row does.

        Raises:
            DataError: the source cannot be read.
        """
        if self.reader is not None:
            return self.reader.fingerprint(self.path.as_posix())
        digest = hashlib.sha256(suffix(self.path).encode())
        try:
            with self.path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", file=self.path) from error
        return digest.hexdigest()


def sources(paths: Sequence[Path], catalogue: Catalogue) -> list[Source]:
    """Return the sources under some paths: files, the files of folders, and hub names.

    Raises:
        DataError: a path names nothing that can be read, or several plugins read it.
        PluginLoadError: what reads it lacks a library.
    """
    known = list(catalogue.of(SourceSpec))
    suffixes = {suffix for provided in known for suffix in provided.spec.suffixes}
    hubs = [provided for provided in known if provided.spec.hub]
    found = []
    for path in paths:
        if hubs and is_hub_name(path):
            found.append(Source(path, _reader(path, hubs, catalogue)))
            continue
        for file in data_files([path], (*CORE_SUFFIXES, *suffixes)):
            readers = [provided for provided in known if suffix(file) in provided.spec.suffixes]
            found.append(Source(file, _reader(file, readers, catalogue) if readers else None))
    return found


def _reader(path: Path, readers: Sequence[Provided[SourceSpec]], catalogue: Catalogue) -> RowSource:
    if len(readers) > 1:
        names = " and ".join(provided.qualified for provided in readers)
        raise DataError(f"can be read by {names}; leave one out with --no-plugin {readers[-1].plugin.name}", file=path)
    reader: RowSource = catalogue.of(SourceSpec).load(readers[0].qualified)()
    return reader
