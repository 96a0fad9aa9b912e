"""A file that grows by whole lines: what ends the work leaves no part of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lmflow_core.errors import OutputError


@contextmanager
def lines_behind(file: Path, kept: int) -> Iterator[Callable[[bytes], None]]:
    """Give what adds a whole line behind the first bytes of a file.

    What else is in the file goes when the first line is added, not before.

    Args:
        file: made, with its folder, for the first line.
        kept: bytes of it that are kept.

    Raises:
        OutputError: the disk refuses.
    """
    whole, descriptor = kept, -1

    def add(line: bytes) -> None:
        nonlocal whole, descriptor
        if descriptor < 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            os.ftruncate(descriptor, whole)
            os.lseek(descriptor, whole, os.SEEK_SET)
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        whole += len(line)

    try:
        yield add
        if descriptor >= 0:
            os.fsync(descriptor)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        if descriptor >= 0:
            os.ftruncate(descriptor, whole)
            os.close(descriptor)
            if not whole:
                file.unlink()
