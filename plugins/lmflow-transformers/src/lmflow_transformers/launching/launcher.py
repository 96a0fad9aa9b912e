"""What ``EngineSpec.launcher`` of an engine names whose processes make one process group."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lmflow_core.api import CommandLine, OptionError, RequestError
from lmflow_transformers.launching.hosts import Host, own_place, read_hostfile
from lmflow_transformers.launching.job import Job
from lmflow_transformers.launching.member import Member
from lmflow_transformers.launching.ranks import STARTED_BY, LocalRanks, end_with_launcher
from lmflow_transformers.launching.slurm import SlurmStep, slurm_step
from lmflow_transformers.options import LaunchOptions

_PORT = 29500
# One of them is there where a GPU may be: of NVIDIA, of AMD, of Windows below Linux.
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class ProcessLauncher:
    """Starts the processes of a job on this machine, together with those of the others, if there are any."""

    def __init__(self, options: LaunchOptions) -> None:
        self._options = options

    def launch(self, command: CommandLine) -> int | None:
        """Run a command in the processes that the options ask for; None where this process is one of them.

        Raises:
            RequestError: options contradict each other, the machine, or the launcher that started this process.
            LmflowError: a machine did not come, or was lost.
        """
        environment = os.environ
        if STARTED_BY in environment:
            end_with_launcher()
            return None
        step = slurm_step(environment)
        if "RANK" in environment or (step is not None and step.tasks > step.nodes):
            self._refuse_within_a_launcher(environment)
            return None
        if not self._options.given:
            return None
        job = self._job(command, step)
        with tempfile.TemporaryDirectory(prefix="lmflow-") as folder:
            return Member(job, LocalRanks(command.arguments, Path(folder))).run()

    def _refuse_within_a_launcher(self, environment: Mapping[str, str]) -> None:
        """Refuse to start processes in each of those that a launcher has started.

        Raises:
            OptionError: the options ask for it.
        """
        # A port is told to those that are joined as well.
        starting = [name for name in self._options.given if name not in ("master_port", "master_addr")]
        if starting:
            whose = "RANK is set" if "RANK" in environment else "SLURM_NTASKS counts several on a machine"
            flag = "--" + starting[0].replace("_", "-")
            raise OptionError(
                f"{flag} is for processes that lmflow starts, and a launcher has started this one already ({whose}): "
                "leave it out, or start lmflow without that launcher"
            )

    def _job(self, command: CommandLine, step: SlurmStep | None) -> Job:
        options = self._options
        hosts, node = self._machines(step)
        count = self._count(hosts[node], command.device)
        return Job(
            hosts=hosts,
            node=node,
            count=count,
            address=options.master_addr or hosts[0].name,
            port=options.master_port or (_PORT if len(hosts) > 1 else 0),
            max_restarts=options.max_restarts or 0,
            host_timeout=options.host_timeout,
            join_timeout=options.join_timeout,
            checkpoints=command.output / "checkpoints",
            resumes=command.resumes,
        )

    def _machines(self, step: SlurmStep | None) -> tuple[tuple[Host, ...], int]:
        """Return the machines of the job, and which of them this one is.

        Raises:
            OptionError: the options do not tell.
        """
        options = self._options
        if options.hostfile is not None:
            listed = read_hostfile(options.hostfile)
            return listed, self._place(own_place(listed, options.hostfile) if options.node_rank is None else 0, listed)
        if options.nnodes is None and step is not None and step.nodes > 1:
            return tuple(Host(name, None) for name in step.names), step.node
        if (options.nnodes or 1) == 1:
            return (Host("localhost", None),), 0
        if options.node_rank is None or options.master_addr is None:
            raise OptionError(
                f"--nnodes {options.nnodes} needs --node-rank, the place of this machine from 0, and --master-addr, "
                "the address of the first; or give --hostfile, a list of all"
            )
        names = [options.master_addr, *(f"with --node-rank {n}" for n in range(1, options.nnodes or 1))]
        hosts = tuple(Host(name, None) for name in names)
        return hosts, self._place(0, hosts)

    def _place(self, found: int, hosts: tuple[Host, ...]) -> int:
        node = found if self._options.node_rank is None else self._options.node_rank
        if node >= len(hosts):
            raise OptionError(f"--node-rank {node} is beyond the last of {len(hosts)} machines, counted from 0")
        return node

    def _count(self, host: Host, device: str) -> int:
        """Return how many processes this machine runs.

        Raises:
            OptionError: the hostfile says otherwise, or there are fewer GPUs.
        """
        asked, gpus = self._options.nproc, 0 if device == "cpu" else visible_gpus()
        if asked is None and host.slots is not None:
            count, source = host.slots, f"slots={host.slots} of {host.name}"
        else:
            count = max(gpus, 1) if asked in (None, "auto", "gpu") else int(str(asked))
            source = f"--nproc {asked}"
        if host.slots not in (None, count):
            raise OptionError(
                f"{source} asks for {count} processes, and --hostfile says slots={host.slots} of {host.name}: "
                "leave out --nproc"
            )
        if 0 < gpus < count:
            raise OptionError(
                f"{source}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}, and each process needs one of its "
                f"own: give --nproc {gpus}, or --device cpu"
            )
        return count


def visible_gpus() -> int:
    """Return how many GPUs this machine has for torch, which is imported only where there may be one.

    Raises:
        RequestError: torch cannot be imported.
    """
    if sys.platform == "linux" and not any(Path(name).exists() for name in _GPUS):
        return 0
    try:
        import torch
    except ImportError as error:
        raise RequestError(f"torch cannot be imported: {error}") from error
    return torch.cuda.device_count()
