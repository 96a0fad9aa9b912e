"""One JSON text read piece by piece, so that a list of any length is never held as a whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lmflow_core.errors import DataError

_CHUNK = 1 << 18
_SPACE = " \t\n\r"
# No piece of a literal, a number or an escape that the end of the buffer cuts through is longer.
_LONGEST_CUT = 16


class _DoubleKeyError(ValueError):
    """An object that gives a key twice: which of the values is meant, nobody can know."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise _DoubleKeyError(f"the key {twice!r} stands twice in an object")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def json_problem(error: Exception) -> str:
    """Return what is wrong with a JSON text, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg.removesuffix(" at").removesuffix(" starting")
    if isinstance(error, _DoubleKeyError):
        return str(error)
    return "nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"


class JsonStream:
    """The values of a stream, in order. Every method raises ``DataError``, with the row, where the JSON is broken."""

    def __init__(self, file: Path, stream: IO[str]) -> None:
        """Read a stream; ``file`` is named in errors."""
        self._file = file
        self._stream = stream
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
                value, end = DECODER.raw_decode(self._buffer, self._position)
            except (ValueError, RecursionError) as error:
                if self._final(error) or not self._fill():
                    raise self._broken(json_problem(error)) from error
                continue
            # A number near the end of the buffer may go on in the next chunk: "1.5e" reads as 1.5.
            if len(self._buffer) - end < _LONGEST_CUT and self._fill():
                continue
            self._position = end
            return value

    def _final(self, error: ValueError | RecursionError) -> bool:
        """Whether no text that may still come can mend an error."""
        if not isinstance(error, json.JSONDecodeError):
            return True
        return not error.msg.startswith("Unterminated") and error.pos < len(self._buffer) - _LONGEST_CUT

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
        if self.peek() not in ('"', ""):
            raise self._broken("expected a key in double quotes")
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
        if not chunk:
            return False
        self._buffer = self._buffer[self._position :] + chunk
        self._position = 0
        return True
