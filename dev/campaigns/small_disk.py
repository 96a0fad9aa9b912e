"""A place with as much room as is wanted."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

_LARGE = 512 << 20


class Disk:
    """A place with little room: a tmpfs, or where none can be mounted a limit on the size of files."""

    def __init__(self, place: Path) -> None:
        """Mount it, where that may be."""
        self.place = place
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_LARGE}", "tmpfs", str(place)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0

    def used(self) -> int:
        """Return the bytes in use."""
        return sum(-(-file.stat().st_size // 4096) * 4096 for file in self.place.rglob("*") if file.is_file())

    def limit(self, room: int) -> Callable[[], None]:
        """Leave room for so many bytes more; return what the child does for it."""
        if self.mounted:
            self._remount(self.used() + room)
            return lambda: None

        def few_bytes() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

        return few_bytes

    def _remount(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={max(size, 4096)}", str(self.place)], check=True)

    def widen(self) -> None:
        """Make room."""
        if self.mounted:
            self._remount(_LARGE)

    def clear(self) -> None:
        """Remove everything."""
        for path in self.place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.place)], check=True)
