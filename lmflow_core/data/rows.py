"""Rows from files, read as a stream.

A row is a mapping with the file and the number it has there (from 1). Memory is bounded by the largest row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from lmflow_core.contracts.source import Row
from lmflow_core.data.files import opened_text, suffix
from lmflow_core.data.json_stream import DECODER, JsonStream, json_problem
from lmflow_core.data.tables import read_paragraphs, read_table
from lmflow_core.errors import DataError

OnError = Callable[[DataError], None]
_Numbered = tuple[int, object, str | None]


def raise_error(error: DataError) -> None:
    """Raise the error: what happens to a bad row unless somebody goes on past it."""
    raise error


def read_rows(file: Path, on_error: OnError = raise_error) -> Iterator[Row]:
    """Yield the rows of one file; ``on_error`` is told of each row that is none, where reading can go on behind it.

    Raises:
        DataError: the file is not UTF-8, it is broken, or (unless ``on_error`` goes on) a row is not an object.
    """
    with opened_text(file) as stream:
        for number, value, declared in _values(file, stream, on_error):
            if isinstance(value, dict):
                yield Row(file, number, value, declared)
            else:
                problem = f"a row must be a JSON object, not {_json_type(value)}"
                on_error(DataError(problem, file=file, row=number))


def _values(file: Path, stream: IO[str], on_error: OnError) -> Iterator[_Numbered]:
    form = suffix(file)
    if form == ".jsonl":
        return _read_lines(file, stream, on_error)
    if form == ".json":
        return _read_json(file, stream)
    found = read_paragraphs(stream) if form == ".txt" else read_table(file, stream)
    return ((number, value, None) for number, value in enumerate(found, start=1))


def _read_lines(file: Path, stream: IO[str], on_error: OnError) -> Iterator[_Numbered]:
    number = 0
    for line in stream:
        if not line.strip():
            continue
        number += 1
        try:
            value = DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            on_error(DataError(f"broken JSON: {json_problem(error)}", file=file, row=number))
        else:
            yield number, value, None


def _json_type(value: object) -> str:
    names = {str: "a string", int: "a number", float: "a number", bool: "a truth value", list: "a list"}
    return names.get(type(value), "null")


def _read_json(file: Path, stream: IO[str]) -> Iterator[_Numbered]:
    """Read a list of rows, or an LMFlow file: ``{"type": T, "instances": [row, …]}``."""
    scanner = JsonStream(file, stream)
    opening = scanner.peek()
    if not opening:
        return
    if opening == "[":
        yield from _numbered(scanner, None)
    elif opening == "{":
        yield from _read_envelope(file, scanner)
    else:
        raise DataError("expected a JSON list of rows, or an object with 'type' and 'instances'", file=file)
    if scanner.peek():
        raise DataError("text follows the end of the JSON; one value per file, or name it .jsonl", file=file)


def _numbered(scanner: JsonStream, declared: str | None) -> Iterator[_Numbered]:
    for number, value in enumerate(scanner.elements(), start=1):
        yield number, value, declared


def _read_envelope(file: Path, scanner: JsonStream) -> Iterator[_Numbered]:
    declared: str | None = None
    seen = False
    for key in scanner.object_keys():
        if key == "instances" and scanner.peek() == "[":
            seen = True
            yield from _numbered(scanner, declared or _type_behind(file))
        else:
            value = scanner.value()
            declared = str(value) if key == "type" else declared
    if not seen:
        raise DataError(
            "the object has no list 'instances'; a file holds a list of rows or an LMFlow object", file=file
        )


def _type_behind(file: Path) -> str | None:
    """Return the ``type`` that stands behind the instances. What is broken there is found when it is read."""
    with suppress(DataError), opened_text(file) as stream:
        scanner = JsonStream(file, stream)
        for key in scanner.object_keys():
            if key == "instances" and scanner.peek() == "[":
                for _ in scanner.elements():
                    pass
            elif key == "type":
                return str(scanner.value())
            else:
                scanner.value()
    return None
