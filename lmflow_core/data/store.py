"""Encoded examples by position: in memory, or in mapped files, so that data of any size takes little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from lmflow_core.contracts.tokens import EncodedExample, EncodedSequence
from lmflow_core.data.columns import Columns, Digest, read_extra
from lmflow_core.data.row_files import mapped_columns


class EncodedRows:
    """Encoded examples that are fetched by position: those appended, or those of the mapped files of a folder."""

    def __init__(self) -> None:
        """Begin with no example, in memory."""
        self._columns = Columns()
        # Arrays in memory, or mapped files seen as such; they read alike.
        self._values: Mapping[str, Any] = self._columns.values
        self._digest: str | None = None

    @classmethod
    def mapped(cls, folder: Path) -> EncodedRows | None:
        """Return what a :class:`~lmflow_core.data.row_files.RowWriter` left in a folder, or None when it is not whole.

        The examples live on where the folder vanishes.
        """
        found = mapped_columns(folder)
        if found is None:
            return None
        rows = cls()
        rows._values, rows._digest = found
        return rows

    def append(self, example: EncodedExample) -> None:
        """Add one example to those in memory."""
        self._columns.append(example)

    def __len__(self) -> int:
        return len(self._values["example_ends"]) - 1

    def __getitem__(self, position: int) -> EncodedExample:
        if not 0 <= position < len(self):
            raise IndexError(position)
        ends = self._values["example_ends"]
        sequences = [self._sequence(at) for at in range(ends[position], ends[position + 1])]
        extra = self._extra(position)
        return read_extra(extra, sequences) if extra else EncodedExample(tuple(sequences))

    def __iter__(self) -> Iterator[EncodedExample]:
        return (self[position] for position in range(len(self)))

    def sequences(self) -> Iterator[EncodedSequence]:
        """Yield the sequences of all examples, one after the other."""
        return (sequence for example in self for sequence in example.sequences)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example, all its sequences together."""
        in_tokens = self._values["sequence_ends"]
        ends = (in_tokens[at] for at in self._values["example_ends"])
        return [end - start for start, end in pairwise(ends)]

    @property
    def tokens(self) -> int:
        """Number of tokens in all examples."""
        return len(self._values["input_ids"])

    def fingerprint(self) -> str:
        """Return a digest of every id, label, boundary, number and image."""
        if self._digest is not None:
            return self._digest
        digest = Digest()
        digest.update(self._values)
        return digest.text()

    def _sequence(self, at: int) -> EncodedSequence:
        ends = self._values["sequence_ends"]
        part = slice(ends[at], ends[at + 1])
        return EncodedSequence(array("i", self._values["input_ids"][part]), array("i", self._values["labels"][part]))

    def _extra(self, position: int) -> bytes:
        """Return the JSON of an example's numbers and media, empty where it has none."""
        owners, ends = self._values["extra_owners"], self._values["extra_ends"]
        found = bisect_left(owners, position)
        if found == len(owners) or owners[found] != position:
            return b""
        return bytes(self._values["extras"][ends[found - 1] if found else 0 : ends[found]])
