"""Linear layers by oneDNN's products, on a processor.

PyTorch multiplies float32 matrices by MKL. On the processors measured (see ``benchmarks/linear_products.py``) oneDNN
is a tenth faster at what training multiplies. At what decoding multiplies, a weight with the few rows of a draft or a
batch, it takes as long for eight rows as for one, where MKL takes nearly twice as long: for that it keeps a copy of the
weight in the order its product reads it.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from torch import nn

_FEW_ROWS = 64
_PACKED_FOR = 4
# The copies may take this share of the memory that is free when a model is loaded.
_SHARE_OF_FREE_MEMORY = 0.25


def quicken_linears(network: nn.Module) -> None:
    """Let the float32 linear layers of a network on a processor multiply by oneDNN, where PyTorch has it."""
    for module in network.modules():
        if type(module) is nn.Linear and _is_plain(module.weight) and has_onednn():
            module.forward = _QuickLinear(module)


def keep_copies(network: nn.Module) -> None:
    """Let the quickened layers of a network keep a copy of their weight when they next see few rows, as in decoding.

    All do or none does: nothing is kept where the copies would take much of the free memory.
    """
    layers = _quick_layers(network)
    if all(layer.copies for layer in layers):
        return
    fits = sum(layer.module.weight.nbytes for layer in layers) <= _SHARE_OF_FREE_MEMORY * _free_memory()
    for layer in layers:
        layer.copies = fits


def _quick_layers(network: nn.Module) -> list[_QuickLinear]:
    return [module.forward for module in network.modules() if isinstance(module.forward, _QuickLinear)]


def few_rows_are_quick(network: nn.Module) -> bool:
    """Whether a pass over a few tokens takes about as long as over one: on a GPU, and with copies of the weights."""
    if any(not parameter.is_cpu for parameter in network.parameters()):
        return True
    return any(layer.copies for layer in _quick_layers(network))


def linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``states`` (…, in) times ``weight`` (out, in) transposed; the quicker product, where no gradient is due."""
    if torch.is_grad_enabled() or not _suits(states, weight) or not has_onednn():
        return nn.functional.linear(states, weight, bias)
    return _product(states, weight, bias)


class _QuickLinear:
    """The forward pass of a linear layer. ``copies`` lets it keep one of its weight."""

    def __init__(self, module: nn.Linear) -> None:
        self.module = module
        self.copies = False
        self._packed: torch.Tensor | None = None
        self._packed_from: tuple[int, int] | None = None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        weight, bias = self.module.weight, self.module.bias
        if not _suits(states, weight):
            return nn.functional.linear(states, weight, bias)
        if torch.is_grad_enabled():
            self.copies, self._packed = False, None  # what is trained changes
            product: torch.Tensor = _Linear.apply(states, weight, bias)
            return product
        few = self.copies and states.numel() <= _FEW_ROWS * states.shape[-1]
        return _product(states, self._stored(weight, few), bias)

    def _stored(self, weight: torch.Tensor, few: bool) -> torch.Tensor:
        """Return the weight: the copy, if it is still true or few rows make it worth making."""
        version = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if self._packed is None or self._packed_from != version:
            self._packed = _packed(weight) if few else None
            self._packed_from = version
        return weight if self._packed is None else self._packed


class _Linear(torch.autograd.Function):
    """A linear layer whose forward product and gradient of the states are oneDNN's; a frozen weight keeps no states."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(states if ctx.needs_input_grad[1] else None, weight)
        return _product(states, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        states, weight = ctx.saved_tensors
        upstream = outer[0]
        rows = upstream.flatten(0, -2)
        wanted = ctx.needs_input_grad
        grad_states = _product(upstream, weight.t(), None) if wanted[0] else None
        grad_weight = rows.t() @ states.flatten(0, -2) if wanted[1] else None
        return grad_states, grad_weight, rows.sum(0) if wanted[2] else None


def _packed(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_FOR)
    return packed


def _product(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return product


def _suits(states: torch.Tensor, weight: torch.Tensor) -> bool:
    return states.is_cpu and states.dtype == weight.dtype == torch.float32


def _is_plain(weight: Any) -> bool:
    return type(weight) is nn.Parameter and weight.is_cpu and weight.dtype == torch.float32


def _free_memory() -> int:
    """Return the bytes a process can take before the system swaps; 0 where that is not known."""
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


@cache
@torch.no_grad()
def has_onednn() -> bool:
    """Whether this build of PyTorch has the products, tried on small ones: they are internal to it and may change."""
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (torch.randn(size, generator=generator) for size in ((3, 32), (48, 32), (48,)))
    expected = nn.functional.linear(states, weight, bias)
    try:
        ours = [_product(states, stored, bias) for stored in (weight, _packed(weight), weight.t().contiguous().t())]
    except (AttributeError, RuntimeError):
        return False
    return all(torch.allclose(product, expected, atol=1e-4) for product in ours)
