"""Rows of Parquet and Arrow files, by way of a process that may die of a damaged file.

pyarrow trusts the lengths and offsets in a file: a few wrong bytes can end the process that reads it. The process of
``table_reader`` reads and checks while this one makes rows of what was checked, so that two cores lose no time by it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from lmflow_core.api import DataError
from lmflow_datasets import table_reader

_PIPE = 1 << 20

_idle: list[Worker] = []
_lock = threading.Lock()


class Worker:
    """A reading process, for one file after another."""

    def __init__(self) -> None:
        program = [sys.executable, "-P", str(Path(table_reader.__file__))]
        self._process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pipesize=_PIPE
        )
        self._requests = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        self._ended = False

    def ask(self, form: str, path: str) -> None:
        """Ask for a file. A process that ended meanwhile answers nothing."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps({"form": form, "path": path}).encode() + b"\n")
            self._requests.flush()

    def frame(self) -> tuple[bytes, bytes] | None:
        """Return the next letter and content; None when the process ended within or before it."""
        head = self._answers.read(9)
        size = int.from_bytes(head[1:], "little")
        content = self._answers.read(size)
        self._ended = len(head) < 9 or len(content) < size
        return None if self._ended else (head[:1], content)

    def end(self) -> int:
        """End the process; return its status, the negative number of a signal that had ended it before."""
        try:
            status = self._process.wait(0.5 if self._ended else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._answers.close()
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        return status


def read_table(form: str, path: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file of the form ``parquet`` or ``arrow``.

    Raises:
        DataError: it is none, or it is damaged.
    """
    worker, frame = _started(form, path)
    try:
        while frame is not None and frame[0] == b"B":
            yield from _values(frame[1], path)
            frame = worker.frame()
    except BaseException:  # such as that nobody wants the rest
        worker.end()
        raise
    if frame is None:
        raise DataError(f"the file is damaged: {_death(worker.end())}; write or download it again", file=path)
    with _lock:
        _idle.append(worker)
    if frame[0] == b"E":
        raise DataError(f"cannot be read as {form.capitalize()}: {frame[1].decode()}", file=path)


def _started(form: str, path: str) -> tuple[Worker, tuple[bytes, bytes] | None]:
    """Return a process that was asked for a file, and its first answer."""
    with _lock:
        worker = _idle.pop() if _idle else None
    if worker is not None:
        worker.ask(form, path)
        first = worker.frame()
        if first is not None:
            return worker, first
        worker.end()  # it had waited too long, or dies of this file as another will
    worker = Worker()
    worker.ask(form, path)
    return worker, worker.frame()


def _values(stream: bytes, path: str) -> list[dict[str, Any]]:
    import pyarrow

    try:
        with pyarrow.ipc.open_stream(stream) as batches:
            return [row for batch in batches for row in batch.to_pylist()]
    except Exception as error:  # such as a date beyond those of Python
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"a value cannot be turned into one of Python: {reason}", file=path) from error


def _death(status: int) -> str:
    if status >= 0:
        return "the process that reads it ended"
    return f"the process that reads it was ended by {signal.Signals(-status).name}"
