"""Runs the commands that a page shows, as a reader would in a folder of their own.

Lines that begin with ``lmflow`` run in this process, which has torch imported already; servers and everything else run
in processes of their own. ``pip install`` of a local folder goes into a folder of packages that only this terminal has.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

SERVERS = ("serve", "webui")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")
_DEFAULT_PORTS = {"serve": "8000", "webui": "7860"}
_OF_THE_SHELL = re.compile(r"[|<>&;$`*]")
_TIMEOUT = 300


class CommandFailedError(AssertionError):
    """A command of a page that ended with another status than 0."""


class Terminal:
    """A folder, an environment and what was started in it. Use it in a ``with`` statement.

    Args:
        folder: where commands run.
        site: a folder of packages that comes before all others; local projects are installed into it.
        environment: variables beside those of this process.
        typed: what is on the standard input of every command.
    """

    def __init__(self, folder: Path, site: Path, environment: Mapping[str, str], typed: str = "") -> None:
        self._folder = folder
        self._site = site
        self._typed = typed
        paths = (str(site), os.environ.get("PYTHONPATH", ""))
        programs = (str(Path(sys.executable).parent), os.environ.get("PATH", ""))
        self._environment = {
            **environment,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PATH": os.pathsep.join(programs),
        }
        self._ports: dict[str, str] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Terminal:
        self._open.enter_context(contextlib.chdir(self._folder))
        self._open.enter_context(mock.patch.dict(os.environ, self._environment))
        self._open.enter_context(mock.patch.object(sys, "path", [str(self._site), *sys.path]))
        self._open.callback(_forget_modules, self._site)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def run(self, command: str) -> None:
        """Run a command.

        Raises:
            CommandFailedError: its exit status is not 0.
        """
        command = self.with_ports(command)
        print(f"$ {command}", flush=True)
        words = shlex.split(command)
        if words[0] == "lmflow" and words[1] in SERVERS:
            self._serve(words[1:])
            return
        status = self._status(command, words)
        if status != 0:
            raise CommandFailedError(f"exit status {status} of: {command}")

    def _status(self, command: str, words: Sequence[str]) -> int:
        if words[0] == "lmflow" and not _OF_THE_SHELL.search(_without_quoted(command)):
            return self._lmflow(words[1:])
        if words[:2] == ["pip", "install"] and Path(words[-1]).is_dir():
            return self._install(str(Path(words[-1]).resolve()))
        shell = ["bash", "-euo", "pipefail", "-c", command]
        return subprocess.run(shell, input=self._typed, text=True, timeout=_TIMEOUT).returncode

    def _lmflow(self, arguments: Sequence[str]) -> int:
        from lmflow_core.cli.main import run

        with mock.patch.object(sys, "stdin", io.StringIO(self._typed)):
            return run(arguments)

    def _install(self, project: str) -> int:
        offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(self._site))
        line = (sys.executable, "-m", "pip", "install", *offline, project)
        status = subprocess.run(line, timeout=_TIMEOUT).returncode
        importlib.invalidate_caches()
        return status

    def _serve(self, arguments: Sequence[str]) -> None:
        """Start a server on a free port, and wait until it listens; it ends with this terminal."""
        asked, rest = _port_of(arguments)
        line = [sys.executable, "-m", "lmflow_core", *rest, "--port", str(_free_port())]
        process = self._open.enter_context(_running(line))
        self._ports[asked] = _listening(process)

    def with_ports(self, text: str) -> str:
        """Return a text with the ports of servers as a page has them replaced by those they really have."""
        for asked, real in self._ports.items():
            text = re.sub(rf"(127\.0\.0\.1|localhost):{asked}\b", f"127.0.0.1:{real}", text)
        return text


def _without_quoted(command: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"$`]*\"", "", command)


def _port_of(arguments: Sequence[str]) -> tuple[str, list[str]]:
    rest = list(arguments)
    if "--port" not in rest:
        return _DEFAULT_PORTS[rest[0]], rest
    at = rest.index("--port")
    asked = rest[at + 1]
    del rest[at : at + 2]
    return asked, rest


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextlib.contextmanager
def _running(line: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=_TIMEOUT)


def _listening(process: subprocess.Popen[str]) -> str:
    told = []
    for line in process.stderr or ():
        told.append(line)
        if found := _ADDRESS.search(line):
            return found[1]
    raise CommandFailedError("a server ended before it listened: " + "".join(told))


def _forget_modules(site: Path) -> None:
    """Forget the modules of a folder of packages, so that another one's of the same name are imported."""
    for name, module in list(sys.modules.items()):
        if (file := getattr(module, "__file__", None)) and Path(file).is_relative_to(site):
            del sys.modules[name]
    importlib.invalidate_caches()
