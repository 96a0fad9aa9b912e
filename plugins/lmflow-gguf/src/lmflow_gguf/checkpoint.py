"""The safetensors of a folder, one tensor in memory at a time.

Files are read, not mapped: mapped pages count as the process's memory until the system takes them back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmflow_core.api import ModelError

INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000
_STORED = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its name, shape, number format (``F32``, ``BF16``, …) and first byte."""

    name: str
    shape: tuple[int, ...]
    format: str
    file: Path
    offset: int

    def read(self) -> np.ndarray:
        """Return the tensor as float16 where it is stored so, else as float32.

        Raises:
            ModelError: the file ends within the tensor.
        """
        count = math.prod(self.shape)
        raw = np.fromfile(self.file, _STORED[self.format], count, offset=self.offset)
        if raw.size != count:
            raise ModelError(f"{self.file} is truncated: it ends within {self.name}")
        return _as_float(raw, self.format).reshape(self.shape)


def _as_float(raw: np.ndarray, stored: str) -> np.ndarray:
    if stored == "BF16":
        wide = raw.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return raw.astype(np.float32) if stored == "F64" else raw


def stored_tensors(folder: Path, stem: str = "model") -> list[StoredTensor]:
    """Return every tensor of a folder's ``<stem>*.safetensors``, in the order of the files.

    Raises:
        ModelError: a file is missing, damaged or holds a number format that GGUF conversion does not know.
    """
    tensors = [tensor for file in _files(folder, stem) for tensor in _tensors_of(file)]
    if not tensors:
        raise ModelError(f"{folder} holds no tensors")
    return tensors


def _files(folder: Path, stem: str) -> list[Path]:
    files = sorted(folder.glob(f"{stem}*.safetensors"))
    index = folder / INDEX
    if index.is_file() and stem == "model":
        names = set(read_json(index).get("weight_map", {}).values())
        missing = sorted(name for name in names if not (folder / name).is_file())
        if missing:
            raise ModelError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names")
        files = sorted(folder / name for name in names)
    if not files:
        raise ModelError(f"{folder} holds no weights: no {stem}*.safetensors file")
    return files


def _tensors_of(file: Path) -> Iterator[StoredTensor]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise ModelError(f"{file} is damaged: its header does not fit into it")
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError as error:
            raise ModelError(f"{file} is damaged: its header is not JSON") from error
    start = 8 + length
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _STORED:
            raise ModelError(f"{name} in {file} is stored as {entry['dtype']}; known are {', '.join(_STORED)}")
        first, last = entry["data_offsets"]
        if start + last > size:
            raise ModelError(f"{file} is truncated: {name} would end at byte {start + last:,} of {size:,}")
        yield StoredTensor(name, tuple(entry["shape"]), entry["dtype"], file, start + first)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one when there is no such file.

    Raises:
        ModelError: the file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object")
    return content
