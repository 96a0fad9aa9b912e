"""Weights that are spread over processes: there as a whole for the time they are needed.

What FSDP shards is in :mod:`lmflow_transformers.shards`. Here is ZeRO stage 3, which spreads weights as they are read:
DeepSpeed marks such parameters (``ds_id``) and gives them methods to gather and to give up what others hold. Once it
runs the training it does so itself, around the forward pass of each module.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_NO_MODULE = -1
_ENTERED: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def sharded(module: torch.nn.Module, *, recurse: bool = False) -> list[Any]:
    """Return the parameters of a module that are spread over processes."""
    return [parameter for parameter in module.parameters(recurse=recurse) if hasattr(parameter, "ds_id")]


@contextmanager
def gathered_as_needed(network: Any) -> Iterator[None]:
    """Let a network run before DeepSpeed does: each module's weights are whole while it computes, the head's always.

    All processes enter, and run the network equally often. Within such a context another one changes nothing.
    """
    if network in _ENTERED:
        yield
        return
    handles = []
    for module in network.modules():
        if sharded(module):
            handles.append(module.register_forward_pre_hook(_gather))
            handles.append(module.register_forward_hook(_give_up))
    head = network.get_output_embeddings()
    kept = [] if head is None else sharded(head)
    _gather_all(kept)
    for parameter in kept:
        parameter.lmflow_kept = True
    _ENTERED.add(network)
    try:
        yield
    finally:
        _ENTERED.discard(network)
        for parameter in kept:
            del parameter.lmflow_kept
        for handle in handles:
            handle.remove()
        if kept:
            kept[0].partition(kept)


def _gather(module: torch.nn.Module, inputs: Any) -> None:
    _gather_all(sharded(module))


def _give_up(module: torch.nn.Module, inputs: Any, output: Any) -> None:
    if spread := [parameter for parameter in sharded(module) if not hasattr(parameter, "lmflow_kept")]:
        spread[0].partition(spread)


def _gather_all(parameters: list[Any]) -> None:
    if missing := [parameter for parameter in parameters if parameter.ds_status.name == "NOT_AVAILABLE"]:
        missing[0].all_gather(missing)


def keep_head_whole(module: torch.nn.Module, network: Any) -> None:
    """Tell DeepSpeed that the forward pass of a module uses the weights of a network's head, which it does not call."""
    head = network.get_output_embeddings()
    for parameter in [] if head is None else sharded(head):
        # Who has spread the parameter is installed.
        importlib.import_module("deepspeed").zero.register_external_parameter(module, parameter)


@contextmanager
def kept_whole(network: torch.nn.Module) -> Iterator[None]:
    """For the time of the context, keep all weights of a network that DeepSpeed runs whole in each process."""
    spread = sharded(network, recurse=True)
    if not spread:
        yield
        return
    kept = [parameter.ds_persist for parameter in spread]
    with importlib.import_module("deepspeed").zero.GatheredParameters(spread):
        for parameter in spread:
            parameter.ds_persist = True
            # Before the first step DeepSpeed gives up those that persist as well, unless a module is at work on them.
            parameter.ds_active_sub_modules.add(_NO_MODULE)
        try:
            yield
        finally:
            for parameter, persists in zip(spread, kept, strict=True):
                parameter.ds_persist = persists
                parameter.ds_active_sub_modules.discard(_NO_MODULE)


def own_part(weight: Any) -> torch.Tensor:
    """Return what this process has of a parameter: of one that is spread, its part."""
    if hasattr(weight, "to_local"):
        part: torch.Tensor = weight.to_local()
        return part
    # ZeRO keeps the part at the parameter's side.
    found: torch.Tensor = getattr(weight, "ds_tensor", weight)
    return found


@contextmanager
def loaded_whole() -> Iterator[None]:
    """Read weights as they are, while those of the model that trains are spread as they are read."""
    from transformers.integrations import deepspeed as integration

    kept, integration._hf_deepspeed_config_weak_ref = integration._hf_deepspeed_config_weak_ref, None
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = kept
