"""Devices and number formats, chosen automatically and refused clearly."""

from __future__ import annotations

import resource
import sys

import torch

from lmflow_core.api import RequestError


def pick_device(asked: str) -> torch.device:
    """Return the device asked for; ``auto`` takes a GPU when there is one.

    Raises:
        RequestError: the device does not exist here.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if asked == "gpu" else asked)
    except RuntimeError as error:
        raise RequestError(f"--device {asked}: not a device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"--device {asked}: this machine has no CUDA GPU that torch can use; use --device cpu")
    return device


def pick_dtype(asked: str, device: torch.device) -> torch.dtype:
    """Return the number format; ``auto`` is float32 on a CPU, where bfloat16 is slow, and bfloat16 on a GPU."""
    if asked == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, asked)
    return dtype


def peak_memory_bytes() -> int:
    """Return the most memory held so far: on the GPU where one is used, else by this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
