"""Chat templates that come with models, rendered in a process of their own within bounds of time, memory and length.

Bounds must hold in every thread and inside single operations (a number of a billion digits), which only another process
allows. It is started once, renders all conversations, and ends with this one.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmflow_core.errors import ModelError

if TYPE_CHECKING:
    from subprocess import Popen

_PROGRAM = Path(__file__).with_name("sandbox_process.py")
# A text may have ten times the characters of its conversation, as templates repeat tools, and a million besides.
SECONDS, MEMORY, TIMES, CHARACTERS = _BOUNDS = 2, 2**30, 10, 1_000_000
_BEYOND = {
    "time": f"takes more than {SECONDS} seconds to render one conversation",
    "memory": f"takes more than {MEMORY >> 30} GB of memory to render one conversation",
    "length": f"writes more than {TIMES} times what a conversation holds and {CHARACTERS:,} characters",
}
# A conversation that takes long leaves a process for the others; more would only take memory.
_PROCESSES = 2


class TemplateLimitError(ModelError):
    """A chat template that goes beyond a bound.

    Attributes:
        problem: which bound, to be put behind the name of the template.
    """

    def __init__(self, name: str, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{name} {problem}: choose a template that LMFlow knows with --template NAME")


def render_jinja(template: str, values: Mapping[str, Any], name: str = "the chat template") -> str | None:
    """Return the text of a Jinja chat template, or None when it refuses the values with an error of its own.

    Args:
        template: in Jinja.
        values: what it may ask for, of the types of JSON.
        name: of the template, for errors.

    Raises:
        TemplateLimitError: it takes too long or too much memory, or writes too much.
        ModelError: the process that renders cannot be started.
    """
    try:
        asked = json.dumps(values, default=str)
    except (ValueError, RecursionError):
        return None
    with _processes.one() as process:
        line = process.ask(template, asked)
        answer = json.loads(line) if line.endswith(b"\n") else None
        if isinstance(answer, list):
            raise TemplateLimitError(name, _BEYOND[answer[0]])
        if not line:
            raise TemplateLimitError(name, process.ending())
    text: str | None = answer
    return text


class _Process:
    """A process that renders, one request at a time."""

    def __init__(self) -> None:
        import subprocess

        try:
            # In a session of its own, so that Ctrl-C reaches this process alone; it ends when its input does.
            self._inner: Popen[bytes] = subprocess.Popen(
                [sys.executable, "-S", "-P", "-B", str(_PROGRAM), *map(str, _BOUNDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))},
                start_new_session=True,
            )
        except OSError as error:
            raise ModelError(f"the process that renders chat templates cannot be started: {error.strerror}") from error
        self._template: str | None = None

    @property
    def runs(self) -> bool:
        return self._inner.poll() is None

    def ask(self, template: str, values: str) -> bytes:
        """Return the answer, a line of JSON; nothing when the process ended instead."""
        assert self._inner.stdin is not None
        assert self._inner.stdout is not None
        known = template == self._template
        self._template = template
        line = memoryview(f"[{'null' if known else json.dumps(template)}, {values}]\n".encode())
        try:
            # Past the buffer, which a fork of this process would share and might write a second time.
            while line:
                line = line[os.write(self._inner.stdin.fileno(), line) :]
        except BrokenPipeError:
            return b""
        return self._inner.stdout.readline()

    def ending(self) -> str:
        """Wait for the end of the process, and tell what brought it about."""
        status = self._inner.wait()
        if status == -getattr(signal, "SIGPROF", 0):
            return _BEYOND["time"]
        return f"ends the process that renders it (exit status {status})"

    def end(self) -> None:
        self._inner.kill()
        self._inner.communicate()


class _Processes:
    """Those that wait for a request, started as they are needed."""

    def __init__(self) -> None:
        self._ends_with_this = False
        self.forget()

    def forget(self) -> None:
        """Begin anew, as a fork must: the processes answer to the one it was forked from."""
        self._seats: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(_PROCESSES):
            self._seats.put(None)

    @contextmanager
    def one(self) -> Iterator[_Process]:
        """Give a process for one request. One that is left in the middle of it is ended."""
        process, seats = self._seats.get(), self._seats
        try:
            if process is None or not process.runs:
                process = _Process()
                self._end_with_this_process()
            yield process
        except BaseException:
            if process is not None:
                process.end()
            process = None
            raise
        finally:
            seats.put(process)

    def _end_with_this_process(self) -> None:
        if not self._ends_with_this:
            self._ends_with_this = True
            atexit.register(self.end)

    def end(self) -> None:
        """End those that wait."""
        while not self._seats.empty():
            process = self._seats.get()
            if process is not None:
                process.end()


_processes = _Processes()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_processes.forget)
