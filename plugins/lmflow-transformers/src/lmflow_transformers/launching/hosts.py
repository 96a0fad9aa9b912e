"""The machines of a job: a hostfile, the list of nodes of Slurm, and which of them this one is."""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmflow_core.api import RequestError

_LINE = re.compile(r"^(\S+)\s+slots\s*=\s*([1-9]\d*)$")
_PARTS = re.compile(r"([^,\[\]]*)(?:\[([^\]]*)\])?")


@dataclass(frozen=True)
class Host:
    """A machine and how many processes it runs; None where the machine itself says so."""

    name: str
    slots: int | None


def read_hostfile(file: Path) -> tuple[Host, ...]:
    """Return the machines that a hostfile lists, in its order: lines ``HOST slots=N``, with comments behind ``#``.

    Raises:
        RequestError: the file cannot be read, or a line is of another form or has a machine of another line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RequestError(f"--hostfile {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"--hostfile {file} is not UTF-8") from error
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise RequestError(f"{file}, line {number}: {text[:80]!r} must look like 'HOST slots=N', N from 1")
        if match[1] in found:
            raise RequestError(f"{file}, line {number}: {match[1]} is there twice; leave one out")
        found[match[1]] = int(match[2])
    if not found:
        raise RequestError(f"--hostfile {file} lists no machine: write a line 'HOST slots=N' for each")
    return tuple(Host(name, slots) for name, slots in found.items())


def own_place(hosts: Sequence[Host], file: Path) -> int:
    """Return which of the machines this one is, by its names and addresses.

    Raises:
        RequestError: it is none of them, or several.
    """
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    places = [n for n, host in enumerate(hosts) if host.name in names]
    if len(places) != 1:
        places = [n for n, host in enumerate(hosts) if _is_here(host.name)]
    if len(places) == 1 or (len(hosts) == 1 and places):
        return places[0]
    if places:
        several = " and ".join(hosts[n].name for n in places)
        raise RequestError(f"--hostfile {file}: {several} are both this machine: give --node-rank, its place from 0")
    raise RequestError(
        f"--hostfile {file}: this machine ({socket.gethostname()}) is none of {', '.join(h.name for h in hosts)}: add "
        "it, or give --node-rank, its place from 0"
    )


def _is_here(name: str) -> bool:
    """Whether a name stands for an address of this machine."""
    try:
        known = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_is_own(family, address) for family, _, _, _, address in known)


def _is_own(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address[0], 0))
    except OSError:
        return False
    return True


def expanded_nodes(nodes: str) -> list[str]:
    """Return the names in a list of Slurm's, such as ``gpu[01-03,7],login``."""
    names: list[str] = []
    for item in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes):
        pieces: list[list[str]] = []
        for text, ranges in _PARTS.findall(item):
            pieces.append([text])
            if ranges:
                pieces.append([number for each in ranges.split(",") for number in _numbers(each)])
        names += ["".join(choice) for choice in itertools.product(*pieces)]
    return names


def _numbers(text: str) -> list[str]:
    first, _, last = text.partition("-")
    if not last:
        return [first]
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def interface_of(address: str) -> str | None:
    """Return the network interface that has an IPv4 address; None where the system does not tell."""
    try:
        import fcntl
        import struct

        wanted = socket.inet_aton(address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                try:
                    answer = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
                except OSError:
                    continue
                if answer[20:24] == wanted:
                    return name
    except (ImportError, OSError):
        pass
    return None
