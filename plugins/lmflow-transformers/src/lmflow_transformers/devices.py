"""Devices and number formats, chosen automatically and refused clearly."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from lmflow_core.api import RequestError

_ROWS_OF_KERNELS = 64
_planned: ContextVar[bool] = ContextVar("planned", default=False)


@contextmanager
def planned_devices() -> Iterator[None]:
    """For the time of the context, take devices that are asked for to exist: nothing is carried out on them."""
    token = _planned.set(True)
    try:
        yield
    finally:
        _planned.reset(token)


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
    if device.type == "cuda" and not (torch.cuda.is_available() or _planned.get()):
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


def free_memory(device: torch.device) -> int:
    """Return the bytes that can be taken on a device, on a CPU before the system swaps; 0 where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            facts = dict(line.split(":") for line in file)
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def rows_of_kernels(device: torch.device, dtype: torch.dtype) -> int:
    """Return what the number of rows of products should be a multiple of.

    For products in half precision on a processor oneDNN makes a kernel for each number of rows that comes, and keeps a
    thousand of them. Where every pass has another number, making them takes a third of the time of the products, and
    they take gigabytes.

    Args:
        device: where the products are computed.
        dtype: the number format that they are computed in.
    """
    return _ROWS_OF_KERNELS if device.type == "cpu" and dtype in (torch.bfloat16, torch.float16) else 1
