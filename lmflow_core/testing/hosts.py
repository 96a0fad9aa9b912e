"""Machines for tests: network namespaces of Linux behind one switch, each with an address of its own.

Processes of one reach those of another over TCP alone, and a cable can be pulled. The file system is shared.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class HostNetwork:
    """Machines behind one switch."""

    def __init__(self, count: int) -> None:
        self._prefix = f"lmf{os.getpid()}"
        self._switch = f"{self._prefix}s"
        self.addresses = [f"10.213.0.{n + 1}" for n in range(count)]

    def _name(self, host: int) -> str:
        return f"{self._prefix}h{host}"

    def make(self) -> None:
        """Make the machines.

        Raises:
            subprocess.CalledProcessError, OSError: this user or system cannot.
        """
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        for host, address in enumerate(self.addresses):
            name, port = self._name(host), f"port{host}"
            _ip("netns", "add", name)
            _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "net0", "netns", name)
            _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "net0")
            for link in ("lo", "net0"):
                _ip("-n", name, "link", "set", link, "up")

    def remove(self) -> None:
        """Remove what was made."""
        for name in (self._switch, *(self._name(host) for host in range(len(self.addresses)))):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def start(
        self, host: int, command: Sequence[str], output: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[Any]:
        """Start a command on a machine; what it says goes into a file."""
        whole = ["ip", "netns", "exec", self._name(host), *command]
        with output.open("ab") as stream:
            return subprocess.Popen(whole, stdout=stream, stderr=stream, env=dict(environment))

    def cut(self, host: int) -> None:
        """Pull the cable of a machine: nothing reaches it or leaves it, and nobody is told."""
        _ip("-n", self._switch, "link", "set", f"port{host}", "down")

    def mend(self, host: int) -> None:
        """Put the cable of a machine back."""
        _ip("-n", self._switch, "link", "set", f"port{host}", "up")


@contextmanager
def hosts(count: int) -> Iterator[HostNetwork | str]:
    """Give some machines for the time of the context, or the reason why there can be none."""
    network = HostNetwork(count)
    try:
        try:
            network.make()
        except subprocess.CalledProcessError as error:
            yield f"network namespaces cannot be made here: {error.stderr.strip()}"
        except OSError as error:
            yield f"network namespaces cannot be made here: {error}"
        else:
            yield network
    finally:
        network.remove()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
