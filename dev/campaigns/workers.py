"""A process that tries cases, and is started again when one of them kills it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_Attempt = Callable[[Any], str | None]


class Worker:
    """Tries one case after another in a process of its own.

    Args:
        make: called in the process; returns what tries a case and says what was lost in it, or None.
        seconds: how long a case may take.
    """

    def __init__(self, make: Callable[[], _Attempt], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._make, theirs), daemon=False)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def outcome(self, case: object) -> str | None:
        """Try a case; return what was lost, None where nothing was."""
        self._pipe.send(case)
        try:
            if self._pipe.poll(self._seconds):
                problem: str | None = self._pipe.recv()
                return problem
            problem = f"hangs: {case}"
        except EOFError:
            self._process.join()
            problem = f"{_death(self._process.exitcode)}: {case}"
        self.end()
        self._start()
        return problem

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(make: Callable[[], _Attempt], pipe: Connection) -> None:
    attempt = make()
    pipe.send("ready")
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(case))


def _death(status: int | None) -> str:
    return f"killed by {signal.Signals(-status).name}" if status is not None and status < 0 else f"exit {status}"
