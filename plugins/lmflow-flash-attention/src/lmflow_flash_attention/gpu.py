"""Flash attention on CUDA: packed examples in one call of flash-attn's variable-length kernel."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lmflow_core.api import RequestError
from lmflow_transformers.api import AttentionInputs


@dataclass(frozen=True)
class Kernel:
    """One generation of flash-attn: where it is imported from, and the GPUs it is made for (compute capability)."""

    generation: int
    distribution: str
    module: str
    capabilities: tuple[int, ...]
    drops: bool = False

    @property
    def installed(self) -> bool:
        """Whether its distribution is there; two generations share the module ``flash_attn``, so that tells nothing."""
        try:
            importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return False
        return True


# The newest first. Compute capability 8 is Ampere and Ada, 9 Hopper, 10 and 12 Blackwell.
KERNELS = (
    Kernel(4, "flash-attn-4", "flash_attn.cute", (9, 10)),
    Kernel(3, "flash-attn-3", "flash_attn_interface", (8, 9)),
    Kernel(2, "flash-attn", "flash_attn", (8, 9, 10, 12), drops=True),
)


def best_kernel(capability: tuple[int, int]) -> Kernel:
    """Return the newest installed kernel for a GPU.

    Raises:
        RequestError: the GPU is too old, or no fitting package is installed.
    """
    fitting = [kernel for kernel in KERNELS if capability[0] in kernel.capabilities]
    if not fitting:
        name = ".".join(map(str, capability))
        raise RequestError(f"--attention flash: flash-attn has no kernel for compute capability {name}; use sdpa")
    for kernel in fitting:
        if kernel.installed:
            return kernel
    names = " or ".join(kernel.distribution for kernel in reversed(fitting))
    raise RequestError(
        f"--attention flash on this GPU needs {names}, not installed: pip install --no-build-isolation flash-attn, "
        "or use --attention sdpa"
    )


def varlen_attention(kernel: Kernel) -> Callable[[AttentionInputs], torch.Tensor]:
    """Return an attention of packed sequences that calls a kernel.

    Raises:
        RequestError: the kernel's package is broken.
    """
    try:
        attend = importlib.import_module(kernel.module).flash_attn_varlen_func
    except (ImportError, OSError, AttributeError) as error:
        raise RequestError(f"--attention flash: {kernel.distribution} cannot be imported: {error}") from error

    def attention(inputs: AttentionInputs) -> torch.Tensor:
        _refuse(kernel, inputs)
        states = (inputs.query, inputs.key, inputs.value)
        # A cache may put more keys before those of the queries; the kernel lays the last of both side by side.
        ends, key_ends = (_boundaries(each, inputs.boundaries) for each in states[:2])
        # The kernel takes (tokens, heads, head size).
        result = attend(
            *(each[0].transpose(0, 1) for each in states),
            cu_seqlens_q=ends,
            cu_seqlens_k=key_ends,
            max_seqlen_q=_longest(ends),
            max_seqlen_k=_longest(key_ends),
            softmax_scale=inputs.scaling,
            causal=True,
            **_extra(inputs),
        )
        # Generations 3 and 4 may give the normalisers as well.
        attended: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return attended[None]

    return attention


def _boundaries(states: torch.Tensor, boundaries: torch.Tensor | None) -> torch.Tensor:
    if boundaries is not None:
        return boundaries
    return torch.tensor([0, states.shape[2]], dtype=torch.int32, device=states.device)


def _extra(inputs: AttentionInputs) -> dict[str, Any]:
    """Return what the kernel is told only where it applies, as not every generation knows it."""
    extra: dict[str, Any] = {"dropout_p": inputs.dropout} if inputs.dropout else {}
    if inputs.window is not None:
        extra["window_size"] = (inputs.window - 1, 0)
    if inputs.softcap is not None:
        extra["softcap"] = inputs.softcap
    return extra


def _longest(ends: torch.Tensor) -> int:
    return int((ends[1:] - ends[:-1]).max())


def _refuse(kernel: Kernel, inputs: AttentionInputs) -> None:
    dtype = inputs.query.dtype
    if dtype not in (torch.float16, torch.bfloat16):
        raise RequestError(f"--attention flash on a GPU takes bfloat16 or float16, not {dtype}: add --dtype bfloat16")
    if inputs.sinks is not None:
        raise RequestError("--attention flash does not support attention sinks; use --attention sdpa or another model")
    if inputs.dropout and not kernel.drops:
        raise RequestError(
            f"--attention flash: {kernel.distribution} does not support attention dropout ({inputs.dropout})"
        )
