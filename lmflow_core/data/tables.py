"""Rows from tables and plain text: CSV and TSV with a header, and text with one row per paragraph."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from lmflow_core.errors import DataError

_LONGEST_CELL = 1 << 27


def read_table(file: Path, stream: IO[str]) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a table by the names in its first line.

    Raises:
        DataError: a name is missing or double, or a row has more cells than there are names.
    """
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(stream, delimiter="\t" if ".tsv" in file.name.lower() else ",", strict=True)
    number = 0
    try:
        names = next(reader, [])
        if "" in names or len(set(names)) < len(names):
            raise DataError("the first line must name each column once", file=file)
        for number, cells in enumerate((cells for cells in reader if cells), start=1):
            if len(cells) != len(names):
                raise DataError(f"{len(cells)} cells where the first line names {len(names)}", file=file, row=number)
            yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"broken CSV: {error}", file=file, row=number + 1) from error


def read_paragraphs(stream: IO[str]) -> Iterator[Mapping[str, str]]:
    """Yield the paragraphs of a text, which blank lines divide."""
    paragraph: list[str] = []
    for line in stream:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield {"text": "".join(paragraph).rstrip("\r\n")}
            paragraph = []
    if paragraph:
        yield {"text": "".join(paragraph).rstrip("\r\n")}
