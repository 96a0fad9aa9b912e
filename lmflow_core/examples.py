"""Rows to examples: the form of the rows is declared, asked for, or recognised from the first row of each file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmflow_core.contracts import DatasetFormat
from lmflow_core.conversations import Conversation, Example, check_trainable
from lmflow_core.errors import DataError
from lmflow_core.registry import Catalogue
from lmflow_core.rows import Row, data_files, read_rows

OnError = Callable[[DataError], None]


@dataclass(frozen=True)
class Located:
    """An example, and where it came from."""

    example: Example
    file: Path
    row: int


@dataclass(frozen=True)
class ChosenFormat:
    """The form of a file's rows and why it was chosen."""

    name: str
    reason: str
    reader: DatasetFormat


def _raise(error: DataError) -> None:
    raise error


class ExampleReader:
    """Reads examples from data files, with the formats that plugins provide."""

    def __init__(self, catalogue: Catalogue, asked: str | None = None, on_error: OnError = _raise) -> None:
        """Read with the format ``asked`` for, or recognise it; ``on_error`` is told of every bad row."""
        self._catalogue = catalogue
        self._asked = asked
        self._on_error = on_error
        self.formats: dict[Path, ChosenFormat] = {}

    def read(self, paths: Sequence[Path]) -> Iterator[Located]:
        """Yield the examples of files and folders.

        Raises:
            DataError: a file cannot be used, or (unless ``on_error`` goes on) a row cannot.
        """
        for file in data_files(paths):
            try:
                yield from self._read_file(file)
            except DataError as error:
                self._on_error(error)

    def _read_file(self, file: Path) -> Iterator[Located]:
        chosen: ChosenFormat | None = None
        for row in read_rows(file):
            chosen = chosen or self._choose(row)
            self.formats[file] = chosen
            try:
                yield Located(_example(chosen, row), file, row.number)
            except ValueError as error:
                self._on_error(DataError(str(error), file=file, row=row.number))
        if chosen is None:
            self._on_error(DataError("the file holds no rows", file=file))

    def _choose(self, row: Row) -> ChosenFormat:
        if self._asked is not None:
            return self._named(self._asked, "asked for with --dataset-format")
        if row.declared is not None:
            return self._declared(row, row.declared)
        fitting = [p.spec.name for p in self._catalogue.datasets if self._reader(p.spec.name).recognises(row.value)]
        if len(fitting) == 1:
            return self._named(fitting[0], f"recognised from the fields {', '.join(row.value)}")
        raise DataError(self._unrecognised(row, fitting), file=row.file, row=row.number)

    def _declared(self, row: Row, name: str) -> ChosenFormat:
        if name not in self._catalogue.datasets:
            known = ", ".join(self._catalogue.datasets.names())
            raise DataError(f"unknown type {name!r}; known types: {known}", file=row.file)
        return self._named(name, "named by the file's 'type'")

    def _named(self, name: str, reason: str) -> ChosenFormat:
        return ChosenFormat(self._catalogue.datasets.spec(name).name, reason, self._reader(name))

    def _reader(self, name: str) -> DatasetFormat:
        reader: DatasetFormat = self._catalogue.datasets.load(name)()
        return reader

    def _unrecognised(self, row: Row, fitting: Sequence[str]) -> str:
        fields = ", ".join(row.value) or "none"
        if fitting:
            return f"fields {fields} fit several forms: choose one with --dataset-format {'|'.join(fitting)}"
        forms = "; ".join(f"{p.spec.name} ({p.spec.fields})" for p in self._catalogue.datasets)
        return f"no known form has the fields {fields}. Known forms: {forms}"


def _example(chosen: ChosenFormat, row: Row) -> Example:
    example = chosen.reader.read(row.value)
    if isinstance(example, Conversation):
        check_trainable(example.messages)
    return example
