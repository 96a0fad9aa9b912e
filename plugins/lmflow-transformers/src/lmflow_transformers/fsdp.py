"""The engine ``fsdp``: weights, gradients and optimizer state in shards (FSDP, arXiv:2304.11277; here FSDP2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from lmflow_core.api import LoadPlan, Placement, RequestError, World
from lmflow_transformers.devices import pick_device, pick_dtype
from lmflow_transformers.engines import TorchrunEngine
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import FsdpOptions
from lmflow_transformers.shards import full, layers_to_shard


class FsdpEngine(TorchrunEngine):
    """Gives each of the processes a shard of every weight, which is whole while its layer computes."""

    def __init__(self, options: FsdpOptions | None = None) -> None:
        self._options = options or FsdpOptions()
        super().__init__(self._options)
        self._plan: LoadPlan | None = None
        self._world = World()

    @contextmanager
    def start(self) -> Iterator[World]:
        """Join the process group.

        Raises:
            RequestError: torch is too old, or the variables are not those of a launcher.
        """
        if not hasattr(FSDPModule, "set_reshard_after_forward"):
            raise RequestError(f"--engine fsdp needs a newer torch than {torch.__version__}: update it")
        with super().start() as world:
            self._world = world
            yield world

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask for weights in main memory, from where each process takes its shards.

        Raises:
            RequestError: the weights, or their number format, cannot be sharded.
        """
        device = pick_device(plan.device)
        _check_form(plan)
        if plan.compute_dtype == "float16" or pick_dtype(plan.dtype, device) == torch.float16:
            raise RequestError("--engine fsdp does not scale losses, which float16 needs: take --dtype bfloat16")
        if self._options.fsdp_offload == "cpu" and device.type == "cpu":
            raise RequestError("--fsdp-offload cpu: on a CPU weights are in main memory already; leave it out")
        self._plan = dataclasses.replace(plan, sharded=True)
        return self._plan

    def placement(self, plan: LoadPlan, processes: int) -> Placement:
        """Tell that everything is spread, and waits in main memory where that is asked for.

        Raises:
            RequestError: the weights cannot be sharded.
        """
        _check_form(plan)
        offloaded = self._options.fsdp_offload == "cpu"
        return Placement(
            dataclasses.replace(plan, sharded=True),
            weights=processes,
            gradients=processes,
            state=processes,
            gathered=True,
            weights_in_main=offloaded,
            state_in_main=offloaded,
        )

    def spread(self, module: Any) -> None:
        """Shard each layer, and what is outside of them (embeddings, head, last norm) with the loss."""
        assert self._plan is not None
        device = pick_device(self._plan.device)
        computed = self._plan.compute_dtype
        rules: dict[str, Any] = {
            "mesh": init_device_mesh(device.type, (self._world.size,)),
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=None if computed is None else getattr(torch, computed),
                reduce_dtype=None if computed is None else torch.float32,
            ),
            "offload_policy": CPUOffloadPolicy() if self._options.fsdp_offload == "cpu" else OffloadPolicy(),
        }
        layers: list[Any] = layers_to_shard(module)
        for layer in layers:
            fully_shard(layer, reshard_after_forward=self._options.fsdp_reshard_after_forward, **rules)
            layer.lmflow_reshards = self._options.fsdp_reshard_after_forward
        fully_shard(module, reshard_after_forward=False, **rules)
        register_fsdp_forward_method(module, "reach")

    def full_weights(self, model: CausalModel) -> Mapping[str, Any] | None:
        """Return the weights gathered in the main process."""
        return full(model.network, keep=self._world.is_main)


def _check_form(plan: LoadPlan) -> None:
    """Check that weights can be sharded.

    Raises:
        RequestError: they are quantised.
    """
    if plan.quantization is not None:
        raise RequestError(
            f"--engine fsdp cannot spread weights of the form {plan.quantization.form}: take --engine torchrun or "
            "leave out the quantisation"
        )
