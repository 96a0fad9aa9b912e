"""Activations in main memory: what the backward pass needs leaves the GPU, and comes back when it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from lmflow_core.api import RequestError

_SMALLEST = 1024  # elements; moving less costs more than it frees


def offloaded_activations(network: Any, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which the activations of a network wait in main memory.

    Weights stay where they are: autograd saves them too, but they are there anyway.

    Raises:
        RequestError: the network is in main memory already, or its weights are not there all the time.
    """
    if any(hasattr(parameter, "to_local") for parameter in network.parameters()):
        raise RequestError("--activation-offload moves the weights that --engine fsdp gathers as well: leave it out")
    check_offloading(device)
    return offloading(network.parameters(), device)


def check_offloading(device: torch.device) -> None:
    """Check that activations can be moved off a device.

    Raises:
        RequestError: they are in main memory already.
    """
    if device.type == "cpu":
        raise RequestError("--activation-offload: on a CPU activations are in main memory already; leave it out")


def offloading(weights: Iterable[torch.Tensor], home: torch.device) -> saved_tensors_hooks:
    """Return hooks that move what autograd saves from ``home`` to main memory and back, except weights."""
    kept = {weight.untyped_storage().data_ptr() for weight in weights}

    def away(tensor: torch.Tensor) -> tuple[torch.Tensor, bool]:
        stays = tensor.numel() < _SMALLEST or tensor.untyped_storage().data_ptr() in kept
        if stays or tensor.device != home:
            return tensor, False
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=home.type == "cuda")
        # Not asynchronous: the GPU may reuse the tensor's memory as soon as this returns.
        return pinned.copy_(tensor), True

    def back(packed: tuple[torch.Tensor, bool]) -> torch.Tensor:
        tensor, moved = packed
        return tensor.to(home, non_blocking=True) if moved else tensor

    return saved_tensors_hooks(away, back)
