"""Locks of the system, which end with the process that holds them, in whatever way it ends."""

from __future__ import annotations

import sys


def lock_file(number: int, wait: bool = False) -> None:
    """Lock an open file for as long as it is open; does nothing where there are no such locks.

    Raises:
        BlockingIOError: another process has locked it, and ``wait`` is not set.
    """
    if sys.platform == "win32":
        return
    import fcntl

    fcntl.flock(number, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
