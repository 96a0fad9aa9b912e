"""The step of a Slurm job that this process belongs to, by its variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmflow_core.api import RequestError
from lmflow_transformers.launching.hosts import expanded_nodes

# Below the ports that systems give away by themselves.
_FIRST_PORT, _PORTS = 12000, 16000


@dataclass(frozen=True)
class SlurmStep:
    """One process, a task, among those that srun started.

    Attributes:
        rank, local: number of this task, in all and on its machine.
        tasks: how many there are.
        node: place of its machine.
        names: of the machines.
        port: one that jobs of a machine are not likely to share.
    """

    rank: int
    local: int
    tasks: int
    node: int
    names: tuple[str, ...]
    port: int

    @property
    def nodes(self) -> int:
        """How many machines there are."""
        return len(self.names)


def slurm_step(environment: Mapping[str, str]) -> SlurmStep | None:
    """Return the step of Slurm's that a process belongs to; None where it belongs to none.

    Raises:
        RequestError: a variable is no number.
    """
    if "SLURM_PROCID" not in environment:
        return None
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "localhost"
    job = _number(environment, "SLURM_JOB_ID", "SLURM_JOBID", default=0)
    step = _number(environment, "SLURM_STEP_ID", default=0)
    return SlurmStep(
        rank=_number(environment, "SLURM_PROCID"),
        local=_number(environment, "SLURM_LOCALID", default=0),
        tasks=tasks,
        node=_number(environment, "SLURM_NODEID", default=0),
        names=tuple(expanded_nodes(nodes)),
        port=_FIRST_PORT + (job * 7 + step) % _PORTS,
    )


def _number(environment: Mapping[str, str], *names: str, default: int = 1) -> int:
    """Return the first of some variables that is set.

    Raises:
        RequestError: it is no number.
    """
    for name in names:
        if (text := environment.get(name)) is not None:
            if not text.isdecimal():
                raise RequestError(f"{name} is {text!r}, which is no number: start the command with srun")
            return int(text)
    return default
