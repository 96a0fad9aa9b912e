"""The process while plugins load: what they do to it does not last.

A plugin runs with the rights of the user, so that this is no wall against one that means harm. It keeps the accidents
of one plugin from the others: output on stdout, a changed directory, a thread or an exit function that is left behind.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

# Threads that plugins started while they loaded. They would keep the program from ending.
STRAY_THREADS: list[threading.Thread] = []


class Interrupts:
    """Tells an interrupt of the user's from one that a plugin raises.

    Where somebody else handles SIGINT, each may be the user's.
    """

    def __init__(self) -> None:
        handler = signal.getsignal(signal.SIGINT)
        self.by_user = callable(handler) and handler is not signal.default_int_handler

    def note(self, number: int, frame: object) -> None:
        """Be the handler of SIGINT."""
        self.by_user = True
        raise KeyboardInterrupt


@contextmanager
def contained_process() -> Iterator[Interrupts]:
    """Keep stdout for results, and restore what plugins may change: streams, hooks, signals, directory, limits."""
    restore = [_streams(), _directory(), _attributes()]
    interrupts = Interrupts()
    handler = _noting(interrupts)
    try:
        yield interrupts
    finally:
        for undo in restore:
            undo()
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def _noting(interrupts: Interrupts) -> Any:
    """Let SIGINT be noted; return the handler before, or None where it is not Python's own, and stays."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is not signal.default_int_handler:
        return None
    signal.signal(signal.SIGINT, interrupts.note)
    return handler


def _streams() -> Callable[[], None]:
    """Send what is written to stdout, by Python or below it, to stderr, until the returned function is called."""
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr", "__stdout__", "__stderr__")}
    _flush(streams["stdout"])
    copies = {number: copy for number in (1, 2) if (copy := _copy(number)) is not None}
    if len(copies) == 2:
        os.dup2(2, 1)
    sys.stdout = sys.stderr

    def undo() -> None:
        for name in ("__stdout__", "__stderr__"):
            _flush(streams[name])  # what was written meanwhile goes where it was meant to go
        for number, copy in copies.items():
            os.dup2(copy, number)
            os.close(copy)
        for name, stream in streams.items():
            setattr(sys, name, stream)
        for name, number in (("stdout", 1), ("stderr", 2)):
            if _is_unusable(streams[name]):
                setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))

    return undo


def _copy(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:
        return None


def _flush(stream: TextIO | None) -> None:
    with suppress(ValueError, OSError, AttributeError):
        if stream is not None:
            stream.flush()


def _is_unusable(stream: TextIO | None) -> bool:
    """Whether a stream was closed or taken apart."""
    if stream is None:
        return False
    try:
        return stream.closed
    except ValueError:
        return True


def _directory() -> Callable[[], None]:
    try:
        before: Path | None = Path.cwd()
    except OSError:
        before = None

    def undo() -> None:
        if before is not None:
            with suppress(OSError):
                os.chdir(before)

    return undo


def _attributes() -> Callable[[], None]:
    arguments, environment = list(sys.argv), dict(os.environ)
    hooks = {name: getattr(sys, name) for name in ("excepthook", "displayhook", "unraisablehook")}
    limit, argv, trace = sys.getrecursionlimit(), sys.argv, sys.gettrace()

    def undo() -> None:
        sys.setrecursionlimit(limit)
        for name, hook in hooks.items():
            setattr(sys, name, hook)
        sys.argv = argv
        sys.argv[:] = arguments
        lost = {name: value for name, value in environment.items() if os.environ.get(name) != value}
        os.environ.update(lost)
        if sys.gettrace() is not trace:
            sys.settrace(trace)

    return undo


@contextmanager
def watched_plugin(problems: list[str]) -> Iterator[None]:
    """Note, while one plugin loads, threads it leaves behind and functions it wants to run at the exit.

    The functions are not registered: one of them could change the exit status of every command. What modules of the
    standard library ask for on being imported is.
    """
    before, process = set(threading.enumerate()), os.getpid()
    register = atexit.register

    def noted(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
        if sys._getframe(1).f_globals.get("__name__", "").partition(".")[0] in sys.stdlib_module_names:
            return register(function, *arguments, **options)
        problems.append("registers a function to run at the exit when it loads")
        return function

    atexit.register = noted  # type: ignore[assignment]
    try:
        yield
    finally:
        atexit.register = register
        if os.getpid() != process:
            os._exit(1)  # the plugin has forked: there is one program, not two
        strays = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
        if strays:
            STRAY_THREADS.extend(strays)
            problems.append("starts a thread that outlives its loading")


def end_process(status: int) -> NoReturn:
    """End the process with an exit status, without waiting for threads that plugins left behind.

    Raises:
        SystemExit: there are none, so that the process may end as usual.
    """
    if any(thread.is_alive() for thread in STRAY_THREADS):
        _flush(sys.stdout)
        _flush(sys.stderr)
        os._exit(status)
    sys.exit(status)
