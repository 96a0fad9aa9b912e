"""Where LMFlow keeps what it can make again: converted models and encoded data."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmflow_core.errors import OutputError


def cache_root() -> Path:
    """Return the folder of LMFlow's caches: ``LMFLOW_CACHE``, else one in the user's cache folder."""
    if given := os.environ.get("LMFLOW_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmflow"


@contextmanager
def made_aside(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on success it becomes ``folder``, unless another process was first.

    Raises:
        OutputError: the disk refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _refused(folder.parent, error) from error
    try:
        yield aside
        if not folder.exists():
            aside.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise _refused(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refused(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"the cache {folder} cannot be written: {error.strerror or error}; set LMFLOW_CACHE")


@contextmanager
def one_at_a_time(name: Path) -> Iterator[None]:
    """Let one process of this machine after the other through; a process that dies lets the next one in."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        file = name.with_name(name.name + ".lock").open("w")
    except OSError as error:
        raise _refused(name.parent, error) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
