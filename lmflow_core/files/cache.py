"""Where LMFlow keeps what it can make again: converted models and encoded data."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lmflow_core.errors import OutputError
from lmflow_core.files.atomic import PARTIAL, scratch_folder
from lmflow_core.files.locks import lock_file


def cache_root() -> Path:
    """Return the folder of LMFlow's caches: ``LMFLOW_CACHE``, else one in the user's cache folder."""
    if given := os.environ.get("LMFLOW_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmflow"


@contextmanager
def atomic_cache_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on success it becomes ``folder``, unless another process was first.

    Raises:
        OutputError: the disk refuses.
    """
    # Processes may fill the same folder at once; each has a name of its own.
    scratch = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    with scratch_folder(scratch, partial(_refused, folder)):
        yield scratch
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _refused(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"the cache {folder} cannot be written: {error.strerror or error}; set LMFLOW_CACHE")


@contextmanager
def locked(name: Path) -> Iterator[None]:
    """Let one process of this machine after the other through; a process that dies lets the next one in."""
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        file = name.with_name(name.name + ".lock").open("w")
    except OSError as error:
        raise _refused(name.parent, error) from error
    with file:
        lock_file(file.fileno(), wait=True)
        yield
