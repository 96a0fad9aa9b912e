"""Rows to examples: the form of the rows is declared, asked for, or recognised from the first row of each file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmflow_core.contracts.dataset import DatasetFormat, DatasetSpec
from lmflow_core.contracts.examples import (
    Candidates,
    Conversation,
    Example,
    ImagePart,
    ImageText,
    Prompt,
    check_prompt,
    check_trainable,
    parts,
)
from lmflow_core.contracts.source import Row
from lmflow_core.data.image_paths import ImageFolders
from lmflow_core.data.placeholders import check_placeholders
from lmflow_core.data.rows import OnError, raise_error
from lmflow_core.data.sources import Source, sources
from lmflow_core.errors import DataError, PluginLoadError, printable
from lmflow_core.plugins.blame import failure_of
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import returned
from lmflow_core.report import console

_LONGEST_LIST = 300


@dataclass(frozen=True)
class Located:
    """An example, and where it came from; ``fields`` are those of its row."""

    example: Example
    file: Path
    row: int
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChosenFormat:
    """The form of a file's rows and why it was chosen."""

    name: str
    reason: str
    reader: DatasetFormat


class ExampleReader:
    """Reads examples from data files, with the formats that plugins provide."""

    def __init__(
        self,
        catalogue: Catalogue,
        asked: str | None = None,
        on_error: OnError = raise_error,
        image_folders: Sequence[Path] = (),
    ) -> None:
        """Read rows.

        Args:
            catalogue: the components there are.
            asked: the format to read with; recognised when None.
            on_error: is told of every bad row.
            image_folders: those that images are read from besides that of the data file.
        """
        self._catalogue = catalogue
        self._asked = asked
        self._on_error = on_error
        self._image_folders = image_folders
        self._errors = 0
        self.formats: dict[Path, ChosenFormat] = {}

    def read(self, paths: Sequence[Path]) -> Iterator[Located]:
        """Yield the examples of files, folders and hub names.

        Raises:
            DataError: a file cannot be used, or (unless ``on_error`` goes on) a row cannot.
        """
        for source in sources(paths, self._catalogue):
            try:
                yield from self._read_source(source)
            except DataError as error:
                self._tell(error)

    def _tell(self, error: DataError) -> None:
        self._errors += 1
        self._on_error(error)

    def _read_source(self, source: Source) -> Iterator[Located]:
        chosen: ChosenFormat | None = None
        errors_before = self._errors
        images = ImageFolders(source.path, self._image_folders)
        for row in source.rows(self._tell):
            chosen = chosen or self._choose(row)
            self.formats[source.path] = chosen
            try:
                yield Located(images.placed(_example(chosen, row)), source.path, row.number, row.value)
            except ValueError as error:
                self._tell(DataError(str(error), file=source.path, row=row.number))
        if chosen is None and self._errors == errors_before:
            self._tell(DataError("the file holds no rows", file=source.path))

    def _choose(self, row: Row) -> ChosenFormat:
        if self._asked is not None:
            return self._named(self._asked, "asked for with --dataset-format")
        if row.declared is not None:
            return self._declared(row, row.declared)
        fitting = self._fitting(row)
        if len(fitting) == 1:
            return self._named(fitting[0], f"recognised from the fields {_fields(row)}")
        raise DataError(self._unrecognised(row, fitting), file=row.file, row=row.number)

    def _fitting(self, row: Row) -> list[str]:
        """Return the forms that recognise a row. One that cannot be loaded is left out, with a note."""
        fitting = []
        for name in map(self._catalogue.of(DatasetSpec).unambiguous, self._catalogue.of(DatasetSpec)):
            try:
                reader = self._reader(name)
                recognised = reader.recognises(row.value)
            except PluginLoadError as error:
                console.note(f"left out: {error}")
                continue
            except Exception as error:
                console.note(f"left out: {failure_of(self._catalogue.of(DatasetSpec).find(name).plugin, error)}")
                continue
            if recognised:
                fitting.append(name)
        return fitting

    def _declared(self, row: Row, name: str) -> ChosenFormat:
        if name not in self._catalogue.of(DatasetSpec):
            known = ", ".join(self._catalogue.of(DatasetSpec).names())
            raise DataError(f"unknown type {name!r}; known types: {known}", file=row.file)
        return self._named(name, "named by the file's 'type'")

    def _named(self, name: str, reason: str) -> ChosenFormat:
        datasets = self._catalogue.of(DatasetSpec)
        return ChosenFormat(datasets.unambiguous(datasets.find(name)), reason, self._reader(name))

    def _reader(self, name: str) -> DatasetFormat:
        reader: DatasetFormat = self._catalogue.of(DatasetSpec).load(name)()
        return reader

    def _unrecognised(self, row: Row, fitting: Sequence[str]) -> str:
        fields = _fields(row) or "none"
        if fitting:
            return f"fields {fields} fit several forms: choose one with --dataset-format {'|'.join(fitting)}"
        forms = "; ".join(f"{p.spec.name} ({p.spec.fields})" for p in self._catalogue.of(DatasetSpec))
        return (
            f"no known form has the fields {fields}: rename them to those of one, such as prompt and completion, "
            f"or put each row into one text. Known forms: {forms}"
        )


def _fields(row: Row) -> str:
    return printable(", ".join(row.value), _LONGEST_LIST)


def _example(chosen: ChosenFormat, row: Row) -> Example:
    example: Example = returned(chosen.reader.read(row.value), Example, chosen.reader, "read")
    for text in _texts(example):
        _check_characters(text)
    for part in parts(example):
        if isinstance(part, Conversation):
            check_trainable(part.messages)
            check_placeholders(part)
        elif isinstance(part, Prompt):
            check_prompt(part.messages)
    return example


def _texts(example: Example) -> Iterator[str]:
    for part in parts(example):
        if isinstance(part, Conversation | Prompt):
            for message in part.messages:
                if isinstance(message.content, str):
                    yield message.content
                else:
                    yield from (p.source if isinstance(p, ImagePart) else p for p in message.content)
                yield message.reasoning or ""
                for call in message.tool_calls:
                    yield call.name + json.dumps(dict(call.arguments), ensure_ascii=False, default=str)
            yield from (json.dumps(dict(tool), ensure_ascii=False, default=str) for tool in part.tools)
        else:
            yield from (value for value in vars(part).values() if isinstance(value, str))
            yield from part.texts if isinstance(part, Candidates) else ()
            yield from part.images if isinstance(part, ImageText) else ()


def _check_characters(text: str) -> None:
    """Refuse half a surrogate pair, which JSON can write and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise ValueError(f"the text holds \\u{code:04x}, half of a character; write or leave out the whole") from None
