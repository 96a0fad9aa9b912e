"""The safetensors of a folder, one tensor in memory at a time.

Files are read, not mapped: mapped pages count as the process's memory until the system takes them back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmflow_core.api import ModelError
from lmflow_transformers.api import TensorEntry, read_object, tensor_entries, weight_files

INDEX = "model.safetensors.index.json"
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
    whole = stem == "model" and (folder / INDEX).is_file()
    files = weight_files(folder) if whole else sorted(folder.glob(f"{stem}*.safetensors"))
    if not files:
        raise ModelError(f"{folder} holds no weights: no {stem}*.safetensors file")
    tensors = [_stored(entry, file) for file in files for entry in tensor_entries(file)]
    if not tensors:
        raise ModelError(f"{folder} holds no tensors")
    return tensors


def _stored(entry: TensorEntry, file: Path) -> StoredTensor:
    if entry.format not in _STORED:
        raise ModelError(f"{entry.name} in {file} is stored as {entry.format}; known are {', '.join(_STORED)}")
    return StoredTensor(entry.name, entry.shape, entry.format, file, entry.offset)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one when there is no such file.

    Raises:
        ModelError: the file holds something else.
    """
    return read_object(path) if path.exists() else {}
