"""Joining the processes of a job: started here, by torchrun, by a launcher with the same variables, or by Slurm."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch.distributed import HashStore, Store

from lmflow_core.api import LmflowError, RequestError, World
from lmflow_transformers.launching.causes import PEER_LOST
from lmflow_transformers.launching.slurm import slurm_step
from lmflow_transformers.options import LaunchOptions

# DeepSpeed calls torch by names that are going away, at each step.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")

_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_HOW = "add --nproc N, or start the command with 'torchrun --nproc-per-node N -m lmflow_core finetune …'"
_ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
# What gloo and NCCL say when the other end of a connection is gone.
_LOST = ("closed by peer", "reset by peer", "Timed out waiting", "Broken pipe", "Connection refused", "Software caused")


def variables_of(environment: Mapping[str, str], options: LaunchOptions) -> dict[str, str]:
    """Return the variables by which processes meet, as a launcher set them or Slurm's tell; none where there are none.

    Raises:
        RequestError: they contradict each other, or some are missing.
    """
    if "RANK" in environment:
        if missing := [name for name in _OF_A_LAUNCHER if name not in environment]:
            raise RequestError(f"RANK is set and {' and '.join(missing)} not: {_HOW}")
        return {name: environment[name] for name in _OF_A_LAUNCHER}
    step = slurm_step(environment)
    if step is not None and step.tasks > 1:
        place = options.master_addr or step.names[0], options.master_port or step.port
        values = (step.rank, step.local, step.tasks, *place)
        return {name: str(value) for name, value in zip(_OF_A_LAUNCHER, values, strict=True)}
    if environment.get("WORLD_SIZE", "1") != "1":
        raise RequestError(f"WORLD_SIZE is {environment['WORLD_SIZE']} and RANK is not set: unset it, or {_HOW}")
    return {}


def world_of(variables: Mapping[str, str]) -> World:
    """Return the world that the variables of a launcher tell of; a world of one where there are none.

    Raises:
        RequestError: one is no number, or they contradict each other.
    """
    if not variables:
        return World()
    numbers = {}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        if not variables[name].isdecimal():
            raise RequestError(f"{name} is {variables[name]!r}, which is no number: {_HOW}")
        numbers[name] = int(variables[name])
    if numbers["RANK"] >= numbers["WORLD_SIZE"]:
        raise RequestError(f"RANK is {numbers['RANK']} in a job of WORLD_SIZE {numbers['WORLD_SIZE']}: {_HOW}")
    return World(numbers["RANK"], numbers["WORLD_SIZE"])


@contextmanager
def joined_processes(options: LaunchOptions | None = None, *, alone: bool = False) -> Iterator[World]:
    """Join the process group for the time of the context, each process of a machine on a GPU of its own.

    Args:
        options: how long processes wait for each other, and where they meet if no launcher says so.
        alone: whether a process without a launcher is a job of one; otherwise it is refused.

    Raises:
        RequestError: the variables are not those of a launcher, or the processes cannot meet.
        LmflowError: contact with another process was lost.
    """
    options = options or LaunchOptions()
    variables = variables_of(os.environ, options)
    if not variables and not alone:
        raise RequestError(f"this engine trains in the processes of a job, and this is none: {_HOW}")
    world = world_of(variables)
    kept = dict(os.environ)
    os.environ.update(variables or _ALONE)
    gpus = torch.cuda.is_available()
    try:
        if gpus:
            _take_gpu(int(os.environ["LOCAL_RANK"]))
        # Sums of numbers that are on no GPU, and jobs with --device cpu, go over gloo.
        _meet(world, "cpu:gloo,cuda:nccl" if gpus else "gloo", HashStore() if not variables else None, options)
        try:
            with _told_losses():
                yield world
        finally:
            # What still holds the group, in cycles that only a search finds, must be gone before it.
            gc.collect()
            torch.distributed.destroy_process_group()
    finally:
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept)


def _take_gpu(local: int) -> None:
    """Compute on the GPU of this process.

    Raises:
        RequestError: there are fewer.
    """
    count = torch.cuda.device_count()
    if local >= count:
        raise RequestError(
            f"LOCAL_RANK is {local}, and this machine has {count} GPU{'s' if count > 1 else ''}, one for each process: "
            "start fewer processes"
        )
    torch.cuda.set_device(local)


def _meet(world: World, backend: str, store: Store | None, options: LaunchOptions) -> None:
    """Make the process group, waiting for the other processes.

    Raises:
        RequestError: they do not come, or the port is in use.
    """
    waiting = timedelta(seconds=options.join_timeout)
    try:
        if store is None:
            store = next(iter(torch.distributed.rendezvous("env://", world.rank, world.size, timeout=waiting)))[0]
            store.set_timeout(waiting)
        timeout = timedelta(seconds=options.process_timeout)
        torch.distributed.init_process_group(
            backend, store=store, rank=world.rank, world_size=world.size, timeout=timeout
        )
    except (torch.distributed.DistError, RuntimeError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise RequestError(
                f"port {os.environ['MASTER_PORT']} is in use by another program: give another one, as in "
                "'torchrun --master-port 29511 …' or with Slurm 'lmflow finetune --master-port 29511 …'"
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"the processes of this job cannot meet at {place}: {reason}") from error


@contextmanager
def _told_losses() -> Iterator[None]:
    """Tell in words of ours that contact with another process was lost.

    Raises:
        LmflowError: it was.
    """
    try:
        yield
    except (torch.distributed.DistError, RuntimeError) as error:
        said = str(error)
        if isinstance(error, torch.distributed.DistError) or any(words in said for words in _LOST):
            raise LmflowError(f"{PEER_LOST}: {' '.join(said.split())[:300]}") from error
        raise
