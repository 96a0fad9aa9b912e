"""Which plugin is loading, told where it takes long and where the process ends meanwhile."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmflow_core.files.cache import cache_root
from lmflow_core.files.locks import lock_file

_PATIENCE_SECONDS = 5.0
_ENTRY_BYTES = 128


class LoadingTrace:
    """A file that names the plugin that is loading; one whose process is gone tells which plugin ended it."""

    def __init__(self) -> None:
        self._name = ""
        self._file: int | None = None

    def loading(self, name: str) -> None:
        """Note that a plugin loads now."""
        self._name = name
        if self._file is not None:
            with suppress(OSError):
                os.pwrite(self._file, name.encode()[:_ENTRY_BYTES].ljust(_ENTRY_BYTES), 0)

    def _tell_it_takes_long(self) -> None:
        _tell(
            f"plugin {self._name} has been loading for {_PATIENCE_SECONDS:.0f} seconds; {_how_to_leave_out(self._name)}"
        )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the file while plugins load, after telling of those that earlier processes left."""
        folder = cache_root() / "loading"
        path = folder / str(os.getpid())
        with suppress(OSError):
            for name in _left_in(folder):
                _tell(f"an earlier start ended while plugin {name} was loading; {_how_to_leave_out(name)}")
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            lock_file(self._file)
        timer = threading.Timer(_PATIENCE_SECONDS, self._tell_it_takes_long)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if self._file is not None:
                os.close(self._file)
                with suppress(OSError):
                    path.unlink()


def _left_in(folder: Path) -> Iterator[str]:
    """Yield, and take away, what processes that are gone have left."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        with suppress(OSError), path.open("rb") as file:
            lock_file(file.fileno())  # fails while the process lives
            name = file.read().decode(errors="replace").strip()
            path.unlink()
            if name:
                yield name


def _how_to_leave_out(name: str) -> str:
    return f"to leave it out, add --no-plugin {name} or set LMFLOW_DISABLE_PLUGINS={name}"


def _tell(message: str) -> None:
    with suppress(ValueError, OSError, AttributeError):
        print(f"lmflow: {message}", file=sys.stderr, flush=True)
