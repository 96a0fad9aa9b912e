"""The processes of a job on this machine: started, looked after, stopped, and asked how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmflow_transformers.launching.causes import PEER_LOST, Cause

# The process number of the launcher, in the processes that it started.
STARTED_BY = "LMFLOW_STARTED_BY"
_ERROR_FILE = "LMFLOW_ERROR_FILE"
_INTERRUPTED = 130
_SHOWN_LINES = 20


def told_ranks(first: int, count: int, size: int) -> str:
    """Return the ranks of a machine in words."""
    return f"rank {first} of {size}" if count == 1 else f"ranks {first} to {first + count - 1} of {size}"


@dataclass(frozen=True)
class Share:
    """The part of a job that a machine runs in one start.

    Attributes:
        first: rank of the machine's first process.
        count: processes of the machine.
        size: processes of the job.
        node: place of the machine.
        host: its name for messages; empty on a machine alone.
        address, port: where the processes meet.
        interface: of the network between machines, if there are several.
        restart: how often the job was started before.
        resume: whether it goes on from a checkpoint.
    """

    first: int
    count: int
    size: int
    node: int
    host: str
    address: str
    port: int
    interface: str | None
    restart: int
    resume: bool

    @property
    def told(self) -> str:
        """The ranks, in words."""
        return told_ranks(self.first, self.count, self.size)

    def environment(self, local: int) -> dict[str, str]:
        """Return the variables of one of the processes, by its number on this machine."""
        defaults: dict[str, object] = {
            "OMP_NUM_THREADS": max((os.cpu_count() or 1) // self.count, 1),
            # Losses of contact are told by us, and names of addresses that have none are no news.
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        }
        if self.interface is not None:
            # By itself gloo takes the interface of the machine's name, which is often the loopback.
            defaults["GLOO_SOCKET_IFNAME"] = self.interface
        variables: dict[str, object] = {
            "RANK": self.first + local,
            "LOCAL_RANK": local,
            "WORLD_SIZE": self.size,
            "LOCAL_WORLD_SIZE": self.count,
            "GROUP_RANK": self.node,
            "MASTER_ADDR": self.address,
            "MASTER_PORT": self.port,
            STARTED_BY: os.getpid(),
        }
        return {name: str(value) for name, value in {**defaults, **os.environ, **variables}.items()}


@dataclass
class LocalRanks:
    """The processes of this machine, one start after another.

    Attributes:
        arguments: of the program; ``--resume`` is added where it goes on.
        folder: for what they say, but for the job's first process, which has the terminal.
        program: what runs in each of them.
        interrupted: whether the user wants them to end.
    """

    arguments: Sequence[str]
    folder: Path
    program: Sequence[str] = (sys.executable, "-m", "lmflow_core")
    interrupted: bool = False
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _killed: set[int] = field(default_factory=set)
    _share: Share | None = None

    def start(self, share: Share) -> None:
        """Start the processes of a share."""
        self._share = share
        self._killed.clear()
        for file in self.folder.iterdir():
            file.unlink()
        arguments = [*self.arguments, *(["--resume"] if share.resume else [])]
        self._processes = [self._started(share, local, arguments) for local in range(share.count)]

    def _started(self, share: Share, local: int, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {**share.environment(local), _ERROR_FILE: str(self.folder / f"{local}.error")}
        command = [*self.program, *arguments]
        with contextlib.ExitStack() as stack:
            output = None
            if share.first + local:
                output = stack.enter_context((self.folder / f"{local}.log").open("wb"))
            # In a session of its own, a process is not interrupted by the terminal: the launcher passes that on, once.
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        """Return the process numbers."""
        return [process.pid for process in self._processes]

    @property
    def running(self) -> bool:
        """Whether one of them runs."""
        return any(process.poll() is None for process in self._processes)

    @property
    def failed(self) -> bool:
        """Whether one of them has ended otherwise than well."""
        return any(process.poll() for process in self._processes)

    def pass_on(self, number: int) -> None:
        """Give a signal of the user's to all of them."""
        self.interrupted = True
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def stop(self, seconds: float, meanwhile: Callable[[], None]) -> None:
        """End all of them: in some seconds by themselves, as they have lost others, or else by force."""
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            meanwhile()
            time.sleep(0.05)
        for local, process in enumerate(self._processes):
            if process.poll() is None:
                self._killed.add(local)
                process.kill()
        end = time.monotonic() + 10
        while self.running and time.monotonic() < end:
            meanwhile()
            time.sleep(0.02)

    def causes(self) -> list[Cause]:
        """Return why they ended, but for those that ended well or were stopped here."""
        share = self._share
        assert share is not None
        ended = ((local, process.poll()) for local, process in enumerate(self._processes))
        return [self._cause(share, local, status) for local, status in ended if status and local not in self._killed]

    def _cause(self, share: Share, local: int, status: int) -> Cause:
        rank = share.first + local
        where = f"rank {rank} of {share.size}" + (f" (host {share.host})" if share.host else "")
        if self.interrupted and status in (_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
            return Cause("stopped", "interrupted", _INTERRUPTED, rank)
        if status < 0:
            name = signal.Signals(-status).name
            mend = ": by somebody, or by the system for want of memory" if -status == signal.SIGKILL else ""
            return Cause("killed", f"{where} was killed by {name}{mend}", 1, rank, self._last_lines(local))
        try:
            told = json.loads((self.folder / f"{local}.error").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return Cause("crashed", f"{where} ended with status {status}", 1, rank, self._last_lines(local))
        message, detail = str(told["message"]), str(told["traceback"])
        kind = "left" if PEER_LOST in message else "told" if told["lasting"] else "crashed"
        # What the first process says, all of them would.
        return Cause(kind, f"{where}: {message}" if rank else message, status, rank, detail)

    def _last_lines(self, local: int) -> str:
        try:
            lines = (self.folder / f"{local}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_SHOWN_LINES:])


def end_with_launcher() -> None:
    """Let this process end when the launcher that started it ends, in whatever way.

    Raises:
        SystemExit: it has ended already.
    """
    launcher = int(os.environ[STARTED_BY])
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    else:
        import threading

        threading.Thread(target=_end_behind, args=(launcher,), daemon=True).start()
    if os.getppid() != launcher:
        raise SystemExit(1)


def _end_behind(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    os._exit(1)
