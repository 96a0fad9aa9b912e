"""What the launchers of a job agree on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lmflow_transformers.launching.hosts import Host

# Seconds that processes have, after one has ended, to tell how they end themselves.
GRACE = 3.0


@dataclass(frozen=True)
class Job:
    """The machines of a job, where they meet, and how long they wait for each other.

    Attributes:
        hosts: the machines, in their order.
        node: place of this one.
        count: processes of this one.
        address, port: of the first machine's coordinator; port 0 is a free one.
        max_restarts: how often the job is started again.
        host_timeout: seconds of silence after which a machine is lost.
        join_timeout: seconds that machines wait for each other.
        checkpoints: the folder that holds them.
        resumes: whether the command goes on from a checkpoint anyway.
    """

    hosts: tuple[Host, ...]
    node: int
    count: int
    address: str
    port: int
    max_restarts: int
    host_timeout: float
    join_timeout: float
    checkpoints: Path
    resumes: bool

    @property
    def several(self) -> bool:
        """Whether there is more than one machine."""
        return len(self.hosts) > 1

    @property
    def beat(self) -> float:
        """Seconds between signs of life."""
        return min(self.host_timeout / 5, 2.0)

    def digest(self) -> str:
        """Return what tells whether two machines mean the same job."""
        return hashlib.sha256(repr([(host.name, host.slots) for host in self.hosts]).encode()).hexdigest()[:12]


def whole_checkpoints(folder: Path) -> set[tuple[str, int]]:
    """Return the checkpoints in a folder whose list of files, which is written last, is there; and when it was."""
    return {(file.parent.name, file.stat().st_mtime_ns) for file in folder.glob("checkpoint-*/checkpoint.json")}
