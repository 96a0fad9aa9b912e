"""The attention ``flash``: the kernel is chosen once, by device, and nothing else ever runs in its place."""

from __future__ import annotations

import torch

from lmflow_core.api import RequestError
from lmflow_flash_attention.cpu import cpu_attention
from lmflow_flash_attention.gpu import best_kernel, varlen_attention
from lmflow_transformers.api import register_attention

# The names must hold neither "flash" nor "sdpa", for which transformers has checks and masks of its own.
_ON_CPU = "lmflow_fa_cpu"


class FlashAttention:
    """Flash attention on a GPU (flash-attn 2, 3 or 4) or a CPU (PyTorch's own kernel)."""

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def implementation(self, device: str) -> str:
        """Register the device's kernel with transformers and return its name.

        Raises:
            RequestError: there is no flash kernel for the device, or its package is not installed.
        """
        kind = _device_kind(device)
        if kind == "cpu":
            return register_attention(_ON_CPU, cpu_attention)
        if kind == "cuda":
            if not torch.cuda.is_available():
                raise RequestError(f"--attention flash on {device}: PyTorch finds no GPU here; use --device cpu")
            kernel = best_kernel(torch.cuda.get_device_capability())
            return register_attention(f"lmflow_fa{kernel.generation}", varlen_attention(kernel))
        raise RequestError(f"--attention flash: there is no flash kernel for {kind}; use --attention sdpa")


def _device_kind(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda" if device.startswith(("cuda", "gpu")) else device
