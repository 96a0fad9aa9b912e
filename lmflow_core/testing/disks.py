"""Folders told by their bytes, and a disk that takes no more than so much of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def sizes_of(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of all files in a folder, by their names relative to it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def digests_of(folder: Path) -> dict[str, str]:
    """Return a digest of all files in a folder, by their names relative to it."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sizes_of(folder)}


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names of files that came, went or changed between two calls of :func:`digests_of`."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@contextmanager
def full_behind(size: int) -> Iterator[None]:
    """Let this process, and those that it starts, write no file longer than some bytes: writing more fails.

    Raises:
        ImportError: the system knows no such limit.
    """
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
