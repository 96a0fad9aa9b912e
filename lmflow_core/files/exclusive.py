"""One run at a time for each output: a second one is refused, instead of the results of two being mixed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmflow_core.errors import OutputError
from lmflow_core.files.atomic import remove_if_empty
from lmflow_core.files.locks import lock_file

# Stands beside a file while it is written; a run that was killed may leave it, empty, and it does no harm.
_LOCK = ".lock"


def lock_of_file(file: Path) -> Path:
    """Return the folder that stands for a file in :func:`exclusive`."""
    return file.with_name(f".{file.name}{_LOCK}")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other runs of this machine out of a folder for the time of the context.

    A folder that is made for it and stays empty vanishes. The system lets go of it when the process ends, in any way.

    Raises:
        OutputError: another run is there, or the folder cannot be made.
    """
    created = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        held = _hold(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        for path in created:
            remove_if_empty(path)
        if held is not None:
            os.close(held)


def _hold(folder: Path) -> int | None:
    """Return a descriptor of the folder that holds it; None where the system cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        return None
    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            lock_file(descriptor)
            if _is_still(descriptor, folder):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            place = folder.with_name(folder.name[1 : -len(_LOCK)]) if folder.name.endswith(_LOCK) else folder
            raise OutputError(f"another run is writing to {place}: wait for it, or choose another --output") from error
        except OSError:  # a file system that knows no locks
            return descriptor
        # Another run ended between the two calls and took the folder away.
        os.close(descriptor)
        folder.mkdir(parents=True, exist_ok=True)


def _is_still(descriptor: int, folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    return False
