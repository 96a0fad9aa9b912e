"""Weights and optimizer state that FSDP2 holds in shards (``DTensor``): cut, and put together again.

A sharded parameter is the process's rows of a tensor; its optimizer state is of the same rows. All functions that put
together are called by all processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def layers_to_shard(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the layers of a network that are sharded each for itself: those that transformers says never to split.

    Without such a word they are the longest list of modules of one class.
    """
    names: set[str] = set()
    for part in module.modules():
        names.update(getattr(part, "_no_split_modules", None) or ())
    if layers := [part for part in module.modules() if type(part).__name__ in names]:
        return layers
    lists = [part for part in module.modules() if isinstance(part, torch.nn.ModuleList) and _alike(part)]
    return list(max(lists, key=len)) if lists else []


def _alike(modules: torch.nn.ModuleList) -> bool:
    return len({type(module) for module in modules}) == 1


def is_sharded(module: torch.nn.Module) -> bool:
    """Whether FSDP2 shards a module's weights."""
    return isinstance(module, FSDPModule)


def reshard(module: torch.nn.Module) -> None:
    """Let go of the rows of others that a pass without a backward pass leaves in memory."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


@contextmanager
def all_whole(module: torch.nn.Module) -> Iterator[None]:
    """Keep all weights whole for the time of the context, so that processes need not run layers in step.

    Entered within a forward pass of ``module``, whose own weights are whole then.
    """
    layers: list[Any] = [part for part in module.modules() if is_sharded(part) and part is not module]
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
        layer.unshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(layer.lmflow_reshards, recurse=False)


def full(network: torch.nn.Module, *, keep: bool) -> dict[str, torch.Tensor]:
    """Return what ``state_dict`` would give if nothing were sharded, in main memory.

    One weight exists as a whole at a time, besides those that are kept.

    Args:
        network: what holds the weights.
        keep: whether this process wants them; others are given nothing.
    """
    reshard(network)
    found: dict[int, torch.Tensor] = {}
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        # Tied weights stay one tensor, so that they are written once.
        if id(parameter) not in found:
            found[id(parameter)] = _whole(parameter.detach(), keep)
        weights[name] = found[id(parameter)]
    if not keep:
        return {}
    return {**weights, **{name: value for name, value in network.state_dict().items() if name not in weights}}


def full_state(state: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """Return the ``state_dict`` of an optimizer with whole tensors in main memory, where ``keep`` is true."""
    values = {
        number: {key: _whole(value, keep) for key, value in values.items()} for number, values in state["state"].items()
    }
    return {**state, "state": values}


def _whole(value: Any, keep: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.cpu().clone() if keep else torch.empty(0)


def sharded_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return a whole ``state_dict`` with this process's rows of what is as large as its parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    values = {
        number: {key: _like(value, parameters[number]) for key, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": values}


@contextmanager
def taking_whole_weights(network: torch.nn.Module) -> Iterator[None]:
    """For the time of the context, let ``load_state_dict`` of a sharded network take whole weights."""

    def cut(module: torch.nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if (key := prefix + name) in state:
                state[key] = _like(state[key], parameter)

    reshard(network)
    handle = network.register_load_state_dict_pre_hook(cut)
    try:
        yield
    finally:
        handle.remove()


def _like(value: Any, parameter: torch.Tensor) -> Any:
    """Return the rows of a whole tensor that a process has of a parameter; what is of another shape as it is."""
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    # Every process has the whole tensor: none has to be told.
    mesh, places = parameter.device_mesh, parameter.placements
    return distribute_tensor(value.to(parameter.device), mesh, places, src_data_rank=None)
