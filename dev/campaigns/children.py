"""Command lines in forked children, which have everything imported already."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 240.0


@dataclass(frozen=True)
class Ended:
    """How a child process ended: its status, negative for a signal, and what it told."""

    status: int
    told: str

    def lost(self) -> str | None:
        """Return what was lost, None where it worked or ended with one message."""
        errors = [line for line in self.told.splitlines() if line.startswith("lmflow: error: ")]
        if self.status == 0:
            return None
        if self.status < 0 or "Traceback" in self.told or len(errors) != 1:
            return f"status {self.status}: {self.told[-600:]}"
        return None


def begin(arguments: list[str], cache: Path, log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Run a command line in a forked child, which has everything imported already; return its process."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.environ["LMFLOW_CACHE"] = str(cache)
        import torch

        torch.set_num_threads(1)
        from lmflow_core.cli.main import run

        prepare()
        status = run(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end(process: int, log: Path, seconds: float = _PATIENCE) -> Ended:
    """Wait for a child; one that takes longer is killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return Ended(os.waitstatus_to_exitcode(status), log.read_text(encoding="utf-8", errors="replace"))
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return Ended(-signal.SIGKILL, "killed, after its time")
