"""Texts of files: plain text a line at a time, or a field of JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmflow_core.api import DataError

_JSON_LINES = (".jsonl", ".ndjson")


def read_texts(file: Path, field: str = "text") -> Iterator[str]:
    """Yield the texts of a file, without what ends a line; empty ones are left out.

    Args:
        file: UTF-8; with the ending ``.jsonl`` each line is an object.
        field: of the objects, that holds the text.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or a line has no such text.
    """
    number = 0
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                text = _field(line, field, file, number) if file.suffix in _JSON_LINES else line.rstrip("\r\n")
                if text.strip():
                    yield text
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror or error}", file=file) from error
    except UnicodeDecodeError as error:
        raise DataError("it is not UTF-8 text", file=file, row=number + 1) from error


def _field(line: str, field: str, file: Path, number: int) -> str:
    if not line.strip():
        return ""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"it is no JSON: {error}", file=file, row=number) from error
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(f"it has no text in the field {field!r}: name another with --field", file=file, row=number)
    return text


@dataclass(frozen=True)
class Corpus:
    """The texts of several files, read anew whenever they are gone through; ``field`` is that of JSON lines."""

    files: Sequence[Path]
    field: str

    def __iter__(self) -> Iterator[str]:
        """Yield the texts.

        Raises:
            DataError: as :func:`read_texts` tells, or no file holds any text.
        """
        found = False
        for file in self.files:
            for text in read_texts(file, self.field):
                found = True
                yield text
        if not found:
            raise DataError("there is no text in it", file=", ".join(map(str, self.files)))


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Return how often each character occurs."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return counts
