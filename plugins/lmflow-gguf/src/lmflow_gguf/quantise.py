"""llama.cpp's quantiser: from a file of a plain type to one of any type."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmflow_core.api import ModelError, OutputError
from lmflow_gguf.runtime import library, processors, reason


def quantise(source: Path, file: Path, type_name: str, importance: Mapping[str, Any] | None = None) -> None:
    """Write a quantised file.

    Args:
        source: a GGUF file of type F32, F16 or BF16.
        file: the file to write.
        type_name: the type as llama.cpp calls it, such as ``Q4_K_M``.
        importance: for tensors by their name in GGUF, the mean square of each input, as float32.

    Raises:
        ModelError: llama.cpp refuses, and says why.
        OutputError: there is no room for the file.
    """
    lib = library()
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{type_name}")
    parameters.nthread = processors()
    kept = _as_array(lib, importance) if importance else None
    if kept is not None:
        parameters.imatrix = kept
    reason()
    status = lib.llama_model_quantize(os.fsencode(source), os.fsencode(file), ctypes.byref(parameters))
    if status != 0:
        said = reason()
        if _disk_is_full(file):
            raise OutputError(f"{file} cannot be written: no space left on the disk")
        raise ModelError(f"llama.cpp cannot make {type_name} of this model: {said}")


def _as_array(lib: Any, importance: Mapping[str, np.ndarray]) -> Any:
    """Return the matrix as llama.cpp takes it, ended by an empty entry; the numbers stay alive with the array."""
    array = (lib.llama_model_imatrix_data * (len(importance) + 1))()
    array.numbers = [np.ascontiguousarray(values, dtype=np.float32) for values in importance.values()]
    for entry, name, values in zip(array, importance, array.numbers, strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return array


def _disk_is_full(file: Path) -> bool:
    status = os.statvfs(file.parent)
    return status.f_bavail * status.f_frsize < 1 << 20
