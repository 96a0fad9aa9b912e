"""Rows from files: JSON and JSONL, one file or a folder of them, read as a stream.

A row is a JSON object with the file and the number it has there (from 1). Memory is bounded by the largest row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lmflow_core.errors import DataError

SUFFIXES = (".json", ".jsonl")
_CHUNK = 1 << 20
_SPACE = " \t\n\r"


@dataclass(frozen=True)
class Row:
    """One row. ``declared`` is the type an LMFlow file names for all its instances, if it does."""

    file: Path
    number: int
    value: Mapping[str, Any]
    declared: str | None = None


def data_files(paths: Iterable[Path]) -> list[Path]:
    """Return the data files under some paths, in order of their names.

    Raises:
        DataError: a path does not exist, is no data file, or is a folder without one.
    """
    files: list[Path] = []
    for path in paths:
        files += _files_of(path)
    return files


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _is_data(file))
        if not found:
            raise DataError(f"the folder holds no data file ({', '.join(SUFFIXES)})", file=path)
        return found
    if not path.exists():
        raise DataError("no such file or folder", file=path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"not a data file; its name must end in {' or '.join(SUFFIXES)}", file=path)
    return [path]


def _is_data(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in file.parts[-2:])


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of one file.

    Raises:
        DataError: the file is not UTF-8, its JSON is broken, or a row is not an object.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            rows = _read_lines(file, stream) if file.suffix.lower() == ".jsonl" else _read_json(file, stream)
            yield from rows
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 ({error.reason} at byte {error.start}); convert it to UTF-8", file=file) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=file) from error


def _read_lines(file: Path, stream: IO[str]) -> Iterator[Row]:
    number = 0
    for line in stream:
        if not line.strip():
            continue
        number += 1
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"broken JSON: {_reason(error)}", file=file, row=number) from error
        yield _row(file, number, value, None)


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"


def _row(file: Path, number: int, value: object, declared: str | None) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"a row must be a JSON object, not {_json_type(value)}", file=file, row=number)
    return Row(file, number, value, declared)


def _json_type(value: object) -> str:
    names = {str: "a string", int: "a number", float: "a number", bool: "a truth value", list: "a list"}
    return names.get(type(value), "null")


def _read_json(file: Path, stream: IO[str]) -> Iterator[Row]:
    """Read a list of rows, or an LMFlow file: ``{"type": T, "instances": [row, …]}``."""
    scanner = _Scanner(file, stream)
    opening = scanner.peek()
    if opening == "[":
        yield from _numbered(file, scanner, None)
    elif opening == "{":
        yield from _read_envelope(file, scanner)
    else:
        raise DataError("expected a JSON list of rows, or an object with 'type' and 'instances'", file=file)
    if scanner.peek():
        raise DataError("text follows the end of the JSON; one value per file, or name it .jsonl", file=file)


def _numbered(file: Path, scanner: _Scanner, declared: str | None) -> Iterator[Row]:
    for number, value in enumerate(scanner.elements(), start=1):
        yield _row(file, number, value, declared)


def _read_envelope(file: Path, scanner: _Scanner) -> Iterator[Row]:
    declared: str | None = None
    seen = False
    for key in scanner.object_keys():
        if key == "instances" and scanner.peek() == "[":
            seen = True
            yield from _numbered(file, scanner, declared)
        else:
            value = scanner.value()
            declared = str(value) if key == "type" else declared
    if not seen:
        raise DataError(
            "the object has no list 'instances'; a file holds a list of rows or an LMFlow object", file=file
        )


class _Scanner:
    """Reads one JSON text piece by piece, so that a list of any length is never held as a whole."""

    def __init__(self, file: Path, stream: IO[str]) -> None:
        self._file = file
        self._stream = stream
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._position = 0
        self._row = 0

    def peek(self) -> str:
        """Return the next character that is not white space, or an empty string at the end."""
        while True:
            while self._position < len(self._buffer):
                if self._buffer[self._position] not in _SPACE:
                    return self._buffer[self._position]
                self._position += 1
            if not self._fill():
                return ""

    def value(self) -> object:
        """Return the next value."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except (json.JSONDecodeError, RecursionError) as error:
                if not self._fill():
                    raise self._broken(_reason(error)) from error
                continue
            # A number at the end of the buffer may go on in the next chunk.
            if end == len(self._buffer) and self._fill():
                continue
            self._position = end
            return value

    def elements(self) -> Iterator[object]:
        """Yield the elements of the list that comes next."""
        self._expect("[")
        self._row = 1
        if self.peek() != "]":
            yield self.value()
            while self.peek() == ",":
                self._position += 1
                self._row += 1
                yield self.value()
        self._expect("]")
        self._row = 0

    def object_keys(self) -> Iterator[str]:
        """Yield the keys of the object that comes next; the caller reads each value."""
        self._expect("{")
        if self.peek() != "}":
            yield self._key()
            while self.peek() == ",":
                self._position += 1
                yield self._key()
        self._expect("}")

    def _key(self) -> str:
        key = self.value()
        self._expect(":")
        return str(key)

    def _expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise self._broken(f"expected {character!r}, found {found!r}" if found else "it ends too early")
        self._position += 1

    def _broken(self, reason: str) -> DataError:
        return DataError(f"broken JSON: {reason}", file=self._file, row=self._row or None)

    def _fill(self) -> bool:
        chunk = self._stream.read(max(_CHUNK, len(self._buffer) - self._position))
        self._buffer = self._buffer[self._position :] + chunk
        self._position = 0
        return bool(chunk)
