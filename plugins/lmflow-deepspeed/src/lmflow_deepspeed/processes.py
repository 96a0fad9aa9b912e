"""The processes of a launcher: torchrun, ``deepspeed``, or none, which is a job of one process."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch.distributed import HashStore

from lmflow_core.api import RequestError, World

# DeepSpeed calls torch by names that are going away, at each step.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")

_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_HOW = "start the command with 'torchrun --nproc-per-node N -m lmflow_core finetune …'"
_ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
_WAITING = timedelta(minutes=30)


def world_of(environment: Mapping[str, str]) -> World:
    """Return the world that a launcher's variables tell of; a world of one where there are none.

    Raises:
        RequestError: they contradict each other, or some are missing.
    """
    if "RANK" not in environment:
        if environment.get("WORLD_SIZE", "1") != "1":
            raise RequestError(f"WORLD_SIZE is {environment['WORLD_SIZE']} and RANK is not set: unset it, or {_HOW}")
        return World()
    if missing := [name for name in _OF_A_LAUNCHER if name not in environment]:
        raise RequestError(f"RANK is set and {' and '.join(missing)} not: {_HOW}")
    numbers = {}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        if not environment[name].isdecimal():
            raise RequestError(f"{name} is {environment[name]!r}, which is no number: {_HOW}")
        numbers[name] = int(environment[name])
    if numbers["RANK"] >= numbers["WORLD_SIZE"]:
        raise RequestError(f"RANK is {numbers['RANK']} in a job of WORLD_SIZE {numbers['WORLD_SIZE']}: {_HOW}")
    return World(numbers["RANK"], numbers["WORLD_SIZE"])


@contextmanager
def joined() -> Iterator[World]:
    """Join the process group, each process of a machine on a GPU of its own.

    Raises:
        RequestError: the variables are not those of a launcher, or the processes cannot meet.
    """
    world = world_of(os.environ)
    alone = "RANK" not in os.environ
    gpus = torch.cuda.is_available()
    kept = dict(os.environ)
    os.environ.update(_ALONE if alone else {})
    if not gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        if gpus:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        _meet(world, "cpu:gloo,cuda:nccl" if gpus else "gloo", alone)
        _compile_nothing()
        try:
            yield world
        finally:
            # What still holds the group, in cycles that only a search finds, must be gone before it.
            gc.collect()
            torch.distributed.destroy_process_group()
    finally:
        _leave()
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept)


def _meet(world: World, backend: str, alone: bool) -> None:
    try:
        if alone:
            torch.distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        else:
            torch.distributed.init_process_group(backend, timeout=_WAITING)
    except torch.distributed.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise RequestError(
                f"port {os.environ['MASTER_PORT']} is in use by another program: give the launcher another one, as in "
                "'torchrun --master-port 29511 …' or 'deepspeed --master_port 29511 …'"
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"the processes of this job cannot meet at {place}: {reason}") from error


def tell_accelerate() -> None:
    """Let accelerate know the processes: without a GPU it would take each for the only one."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="nccl" if torch.cuda.is_available() else "gloo")


def _compile_nothing() -> None:
    """Let processors talk over gloo alone: DeepSpeed would compile a kernel of its own at the first start."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _leave() -> None:
    """Forget what libraries keep of the group for the life of a process."""
    from accelerate.state import AcceleratorState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    AcceleratorState._reset_state(reset_partial_state=True)
    unset_hf_deepspeed_config()
    try:
        from deepspeed.comm import comm
    except ImportError:
        return
    comm.cdb = None
