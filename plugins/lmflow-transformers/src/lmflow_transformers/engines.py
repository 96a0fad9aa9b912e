"""Engines: one process, or several with the same weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lmflow_core.api import LoadPlan, Placement, RequestError, World
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import LaunchOptions
from lmflow_transformers.processes import joined_processes

# Gradients are averaged in buckets of 25 MB; two are under way (torch's DistributedDataParallel).
_BUCKETS = 2 * 25 * 2**20


class LocalEngine:
    """One process."""

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    @contextmanager
    def start(self) -> Iterator[World]:
        """Give a world of one."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RequestError(
                "--engine local in one of several processes: leave out --engine, or take --engine torchrun"
            )
        yield World()

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights."""
        return plan

    def spread(self, module: Any) -> None:
        """Spread nothing."""

    def placement(self, plan: LoadPlan, processes: int) -> Placement:
        """Tell that the process holds everything.

        Raises:
            RequestError: there are several.
        """
        if processes > 1:
            raise RequestError(f"--engine local is one process: for {processes} add --engine torchrun or another")
        return Placement(plan)

    def all_gather(self, value: object) -> list[Any]:
        """Return the value of the only process."""
        return [value]

    def full_weights(self, model: CausalModel) -> None:
        """Return nothing: the process has all weights."""

    def trainer_arguments(self) -> Mapping[str, Any]:
        """Add nothing."""
        return {}


class TorchrunEngine:
    """The processes that were started here, by torchrun or by Slurm, each with its share of every batch."""

    def __init__(self, options: LaunchOptions | None = None) -> None:
        """Keep how long processes wait for each other."""
        self._launch = options or LaunchOptions()

    @contextmanager
    def start(self) -> Iterator[World]:
        """Join the process group, each process of a machine on a GPU of its own."""
        with joined_processes(self._launch) as world:
            yield world

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights: each process has them all."""
        return plan

    def spread(self, module: Any) -> None:
        """Spread nothing."""

    def placement(self, plan: LoadPlan, processes: int) -> Placement:
        """Tell that each process holds everything."""
        return Placement(plan, buffers=_BUCKETS if processes > 1 else 0)

    def full_weights(self, model: CausalModel) -> Mapping[str, Any] | None:
        """Return nothing: each process has all weights."""

    def all_gather(self, value: object) -> list[Any]:
        """Return every process's value."""
        values: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(values, value)
        return values

    def trainer_arguments(self) -> Mapping[str, Any]:
        """Tell the trainer which backend is in use."""
        return {"ddp_backend": "nccl" if torch.cuda.is_available() else "gloo"}
