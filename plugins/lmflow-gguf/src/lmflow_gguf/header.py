"""The head of a GGUF file, read without any library: enough to tell a whole file from a damaged one."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gguf

from lmflow_core.api import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT_KEY = "general.alignment"
_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_MOST = 1 << 32


@dataclass(frozen=True)
class Header:
    """Keys (plain values; arrays by their length), the names of the tensors and a digest of all keys."""

    keys: Mapping[str, object]
    tensors: frozenset[str]
    digest: str


def read_header(file: Path) -> Header:
    """Return the head of a GGUF file, after checking that every tensor lies within the file.

    Raises:
        ModelError: the file is none, of an unknown version, or truncated.
    """
    with file.open("rb") as stream:
        magic = stream.read(4)
        if magic != _MAGIC:
            raise ModelError(f"{file} is no GGUF file: it begins with {magic!r}")
        try:
            return _read(stream, file)
        except (struct.error, MemoryError, OverflowError, OSError) as error:
            raise ModelError(f"{file} is truncated: it ends within its header") from error


def _read(stream: BinaryIO, file: Path) -> Header:
    (version,) = _unpack(stream, "<I")
    if version not in _VERSIONS:
        raise ModelError(f"{file} is of GGUF version {version}; known are {', '.join(map(str, _VERSIONS))}")
    number, count = _unpack(stream, "<QQ")
    start = stream.tell()
    keys = {_string(stream): _value(stream, _unpack(stream, "<I")[0]) for _ in range(count)}
    end = stream.tell()
    ends = dict(_tensor(stream) for _ in range(number))
    last = max(ends.values(), default=0)
    alignment = keys.get(_ALIGNMENT_KEY, 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ModelError(f"{file} is damaged: {_ALIGNMENT_KEY} is {alignment!r}, and must be a whole number above 0")
    needed = math.ceil(stream.tell() / alignment) * alignment + last
    size = file.stat().st_size
    if size < needed:
        raise ModelError(f"{file} is truncated: it has {size:,} bytes, and its tensors need {needed:,}")
    stream.seek(start)
    return Header(keys, frozenset(ends), hashlib.sha256(stream.read(end - start)).hexdigest()[:16])


def _unpack(stream: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, stream.read(struct.calcsize(form)))


def _string(stream: BinaryIO) -> str:
    (length,) = _unpack(stream, "<Q")
    if length > _MOST:
        raise OverflowError
    raw = stream.read(length)
    if len(raw) < length:
        raise OverflowError
    return raw.decode("utf-8", errors="replace")


def _value(stream: BinaryIO, kind: int) -> object:
    if kind == _STRING:
        return _string(stream)
    if kind == _ARRAY:
        item, length = _unpack(stream, "<IQ")
        if item == _STRING:
            for _ in range(length):
                _string(stream)
        else:
            stream.seek(_size(item) * length, 1)
        return length
    raw = stream.read(_size(kind))
    if len(raw) < _size(kind):
        raise OverflowError
    form = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind]
    return struct.unpack("<" + form, raw)[0]


def _size(kind: int) -> int:
    if kind not in _SIZES:
        raise OverflowError
    return _SIZES[kind]


def _tensor(stream: BinaryIO) -> tuple[str, int]:
    """Read one tensor's entry; return its name and the byte it ends at, counted from where the tensors begin."""
    name = _string(stream)
    (dimensions,) = _unpack(stream, "<I")
    if dimensions > 8:
        raise OverflowError
    shape = _unpack(stream, f"<{dimensions}Q")
    kind, offset = _unpack(stream, "<IQ")
    block, size = gguf.GGML_QUANT_SIZES.get(kind, (1, 0))  # type: ignore[call-overload]
    return name, offset + math.prod(shape) // block * size
