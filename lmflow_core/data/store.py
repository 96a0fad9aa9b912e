"""Encoded rows end to end: in memory, or in files that are mapped, so that data of any size takes little memory."""

from __future__ import annotations

import hashlib
import json
import mmap
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from lmflow_core.contracts.tokens import Encoded
from lmflow_core.errors import OutputError

_FIELDS: dict[str, Literal["i", "q"]] = {"input_ids": "i", "labels": "i", "ends": "q"}
_META = "meta.json"
_FLUSHED_AT = 1 << 20
# An array in memory, or a mapped file seen as one; they read alike.
_Integers = Any


class EncodedRows:
    """Encoded examples in two sequences of 32-bit integers, and the 64-bit end of each example."""

    def __init__(self) -> None:
        self._input_ids: _Integers = array("i")
        self._labels: _Integers = array("i")
        self._ends: _Integers = array("q", [0])
        self._digest: str | None = None

    @classmethod
    def mapped(cls, folder: Path) -> EncodedRows | None:
        """Return the rows that a :class:`RowWriter` left in a folder, or None when they are not whole."""
        meta = read_meta(folder)
        if meta is None:
            return None
        rows = cls()
        try:
            rows._input_ids, rows._labels, rows._ends = (_mapped(folder / name, code) for name, code in _FIELDS.items())
        except (OSError, TypeError):  # a file that ends within an integer cannot be cast
            return None
        rows._digest = meta["fingerprint"]
        whole = len(rows) == meta["rows"] and len(rows._input_ids) == len(rows._labels) == meta["tokens"]
        return rows if whole else None

    def append(self, row: Encoded) -> None:
        """Add one example to rows in memory."""
        self._input_ids.extend(row.input_ids)
        self._labels.extend(row.labels)
        self._ends.append(len(self._input_ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, position: int) -> Encoded:
        if not 0 <= position < len(self):
            raise IndexError(position)
        part = slice(self._ends[position], self._ends[position + 1])
        return Encoded(array("i", self._input_ids[part]), array("i", self._labels[part]))

    def __iter__(self) -> Iterator[Encoded]:
        return (self[position] for position in range(len(self)))

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example."""
        return [self._ends[at + 1] - self._ends[at] for at in range(len(self))]

    @property
    def tokens(self) -> int:
        """Number of tokens in all examples."""
        return len(self._input_ids)

    def fingerprint(self) -> str:
        """Return a digest of every id, label and boundary."""
        if self._digest is not None:
            return self._digest
        digest = _Digest()
        digest.update(self._input_ids, self._labels, self._ends[1:])
        return digest.text()


class RowWriter:
    """Writes encoded rows into the files of a folder; they are whole once :meth:`close` has returned."""

    def __init__(self, folder: Path) -> None:
        """Begin in an existing, empty folder.

        Raises:
            OutputError: the disk refuses a write.
        """
        self._folder = folder
        self._pending = {name: array(code) for name, code in _FIELDS.items()}
        self._pending["ends"].append(0)
        self._digest = _Digest()
        self._rows = self._tokens = 0
        try:
            self._files = {name: (folder / name).open("wb") for name in _FIELDS}
        except OSError as error:
            raise self._refused(error) from error

    def append(self, row: Encoded) -> None:
        """Add one example.

        Raises:
            OutputError: the disk refuses a write.
        """
        self._pending["input_ids"].extend(row.input_ids)
        self._pending["labels"].extend(row.labels)
        self._rows += 1
        self._tokens += len(row.input_ids)
        self._pending["ends"].append(self._tokens)
        if len(self._pending["input_ids"]) >= _FLUSHED_AT:
            self._flush()

    def close(self, facts: Mapping[str, Any]) -> None:
        """Finish the files; ``facts`` are kept beside them.

        Raises:
            OutputError: the disk refuses a write.
        """
        self._flush()
        meta = {"rows": self._rows, "tokens": self._tokens, "fingerprint": self._digest.text(), "facts": dict(facts)}
        try:
            for file in self._files.values():
                file.close()
            (self._folder / _META).write_text(json.dumps(meta), encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error

    def _flush(self) -> None:
        ends = self._pending["ends"]
        fresh = ends[1:] if ends[:1] == array("q", [0]) else ends
        self._digest.update(self._pending["input_ids"], self._pending["labels"], fresh)
        try:
            for name, values in self._pending.items():
                values.tofile(self._files[name])
                del values[:]
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(f"{self._folder} cannot be written: {error.strerror or error}")


class _Digest:
    """A digest of ids, labels and ends that does not depend on how they come in pieces."""

    def __init__(self) -> None:
        self._parts = [hashlib.sha256() for _ in _FIELDS]

    def update(self, *values: _Integers) -> None:
        for part, integers in zip(self._parts, values, strict=True):
            part.update(integers.tobytes())

    def text(self) -> str:
        return hashlib.sha256(b"".join(part.digest() for part in self._parts)).hexdigest()[:16]


def read_meta(folder: Path) -> dict[str, Any] | None:
    """Return what was kept beside the rows of a folder, or None when it holds none."""
    try:
        meta: dict[str, Any] = json.loads((folder / _META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return meta


def _mapped(file: Path, code: Literal["i", "q"]) -> memoryview[int]:
    with file.open("rb") as stream:
        empty = not file.stat().st_size
        content = memoryview(b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    return content.cast(code)
