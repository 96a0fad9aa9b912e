"""The head of a safetensors file: which tensors lie where, checked before anything is read or allocated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.api import ModelError

_LONGEST = 100_000_000
_MOST_DIMENSIONS = 16
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of a file: name, number format (``F32``, ``BF16``, …), shape, and its first byte in the file."""

    name: str
    format: str
    shape: tuple[int, ...]
    offset: int


def tensor_entries(file: Path) -> list[TensorEntry]:
    """Return the tensors of a safetensors file in the order of their bytes, which they fill without a gap.

    Raises:
        ModelError: the file is truncated or damaged, or its head does not tell the truth.
    """
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            length = int.from_bytes(stream.read(8), "little")
            if length > min(size - 8, _LONGEST):
                raise ModelError(f"{file} is damaged: its header does not fit into it")
            head = json.loads(stream.read(length))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is damaged: its header is not JSON") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    if not isinstance(head, dict):
        raise ModelError(f"{file} is damaged: its header is no JSON object")
    head.pop("__metadata__", None)
    return [*_checked(head, file, 8 + length, size)]


def _checked(head: dict[str, Any], file: Path, start: int, size: int) -> Iterator[TensorEntry]:
    entries = sorted((_entry(name, entry, file) for name, entry in head.items()), key=lambda entry: entry[1:])
    end = 0
    for entry, first, last in entries:
        if first != end:
            raise ModelError(f"{file} is damaged: {entry.name} begins at byte {first:,}, where {end:,} was expected")
        if start + last > size:
            raise ModelError(f"{file} is truncated: {entry.name} would end at byte {start + last:,} of {size:,}")
        end = last
        yield TensorEntry(entry.name, entry.format, entry.shape, start + first)
    if start + end != size:
        raise ModelError(f"{file} is damaged: its tensors end at byte {start + end:,} of {size:,}")


def _entry(name: str, entry: object, file: Path) -> tuple[TensorEntry, int, int]:
    """Return a tensor, and the bytes it begins and ends at behind the header."""
    found = entry if isinstance(entry, dict) else {}
    stored, shape, place = found.get("dtype"), found.get("shape"), found.get("data_offsets")
    if not (_are_sizes(shape, _MOST_DIMENSIONS) and _are_sizes(place, 2) and len(place) == 2):
        raise ModelError(f"{file} is damaged: its header does not tell where {name} lies and in which shape")
    if not isinstance(stored, str) or stored not in _BITS:
        raise ModelError(f"{file} is damaged: {name} has the unknown number format {stored!r}")
    first, last = place
    needed = math.prod(shape) * _BITS[stored]
    if needed != 8 * (last - first):
        raise ModelError(
            f"{file} is damaged: {name} has {last - first:,} bytes, and {stored} of shape {shape} needs {needed // 8:,}"
        )
    return TensorEntry(name, stored, tuple(shape), 0), first, last


def _are_sizes(value: Any, most: int) -> bool:
    return isinstance(value, list) and len(value) <= most and all(type(size) is int and size >= 0 for size in value)
