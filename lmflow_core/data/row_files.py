"""Encoded examples in the files of a folder: they are written as they come, and mapped to be read."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lmflow_core.contracts.tokens import EncodedExample
from lmflow_core.data.columns import CODES, Columns, Digest
from lmflow_core.errors import OutputError

_META = "meta.json"
_FLUSHED_AT = 1 << 20


class RowWriter:
    """Writes encoded examples into the files of a folder; they are whole once :meth:`close` has returned."""

    def __init__(self, folder: Path) -> None:
        """Begin in an existing, empty folder.

        Raises:
            OutputError: the disk refuses a write.
        """
        self._folder = folder
        self._columns = Columns()
        self._lengths = dict.fromkeys(CODES, 0)
        self._digest = Digest()
        try:
            self._files = {name: (folder / name).open("wb") for name in CODES}
        except OSError as error:
            raise self._refused(error) from error

    def append(self, example: EncodedExample) -> None:
        """Add one example.

        Raises:
            OutputError: the disk refuses a write.
        """
        self._columns.append(example)
        if len(self._columns.values["input_ids"]) >= _FLUSHED_AT:
            self._flush()

    def close(self, facts: Mapping[str, Any]) -> None:
        """Finish the files; ``facts`` are kept beside them, as JSON.

        Raises:
            OutputError: the disk refuses a write.
        """
        self._flush()
        meta = {"lengths": self._lengths, "fingerprint": self._digest.text(), "facts": dict(facts)}
        try:
            for file in self._files.values():
                file.close()
            (self._folder / _META).write_text(json.dumps(meta), encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error

    def _flush(self) -> None:
        self._digest.update(self._columns.values)
        try:
            for name, values in self._columns.values.items():
                values.tofile(self._files[name])
                self._lengths[name] += len(values)
        except OSError as error:
            raise self._refused(error) from error
        self._columns.clear()

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(f"{self._folder} cannot be written: {error.strerror or error}")


def read_meta(folder: Path) -> dict[str, Any] | None:
    """Return what was kept beside the examples of a folder, or None when it holds none."""
    try:
        meta: dict[str, Any] = json.loads((folder / _META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return meta


def mapped_columns(folder: Path) -> tuple[dict[str, memoryview[int]], str] | None:
    """Return the columns in a folder and their fingerprint, or None when they are not whole."""
    meta = read_meta(folder)
    if meta is None:
        return None
    try:
        values = {name: _mapped(folder / name, code) for name, code in CODES.items()}
    except (OSError, TypeError):  # a file that ends within an integer cannot be cast
        return None
    whole = meta.get("lengths") == {name: len(column) for name, column in values.items()}
    return (values, meta["fingerprint"]) if whole else None


def _mapped(file: Path, code: Literal["i", "q", "B"]) -> memoryview[int]:
    with file.open("rb") as stream:
        empty = not file.stat().st_size
        content = memoryview(b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    return content.cast(code)
