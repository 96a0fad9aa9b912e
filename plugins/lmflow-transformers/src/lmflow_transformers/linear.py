"""Linear layers that are quick with few rows, on a processor.

Decoding multiplies each weight with one row for each token, or with the few rows of a draft or a batch. PyTorch does
that by MKL, which takes nearly twice as long for eight rows as for one. oneDNN, with a copy of the weight in the order
its product reads, takes about the same time for both (measured by ``benchmarks/few_rows.py``).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from lmflow_transformers.devices import free_memory

_FEW_ROWS = 64
_ROW_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, _FEW_ROWS)
_PACKED_FOR = 4
# The copies may take this share of the memory that is free when a model is loaded.
_SHARE_OF_FREE_MEMORY = 0.25


def keep_copies(network: nn.Module) -> None:
    """Let the float32 linear layers of a network on a processor keep such copies, each from its next use on.

    All do or none does: nothing is kept where the copies would take much of the free memory, or where PyTorch has no
    oneDNN. A layer that is trained lets go of its copy.
    """
    layers = [module for module in network.modules() if type(module) is nn.Linear and _is_plain(module.weight)]
    without = [module for module in layers if "forward" not in vars(module)]
    needed = sum(module.weight.nbytes for module in without)
    if without and needed <= _SHARE_OF_FREE_MEMORY * free_memory(torch.device("cpu")) and has_onednn():
        for module in without:
            module.forward = _QuickLinear(module)


def few_rows_are_quick(network: nn.Module) -> bool:
    """Whether a pass over a few tokens takes about as long as over one: on a GPU, and with copies of the weights."""
    if any(not parameter.is_cpu for parameter in network.parameters()):
        return True
    return any(isinstance(module.forward, _QuickLinear) for module in network.modules())


class _QuickLinear:
    """The forward pass of a linear layer outside of training."""

    def __init__(self, module: nn.Linear) -> None:
        self._module = module
        self._copy: torch.Tensor | None = None
        self._copied: tuple[int, int, int] | None = None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        weight, bias = self._module.weight, self._module.bias
        if torch.is_grad_enabled():
            vars(self._module).pop("forward", None)
            return nn.functional.linear(states, weight, bias)
        few = 0 < states.numel() <= _FEW_ROWS * states.shape[-1]
        if few and states.is_cpu and states.dtype == weight.dtype == torch.float32:
            return _padded_product(states, self._copy_of(weight), bias)
        return nn.functional.linear(states, weight, bias)

    def _copy_of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the copy, made anew if the weight is not what was copied."""
        version = (weight.data_ptr(), 0 if weight.is_inference() else weight._version, _STEPS.done)
        if self._copy is None or self._copied != version:
            self._copy, self._copied = _packed(weight), version
        return self._copy


class _Steps:
    """Counts the steps of all optimizers: fused ones change weights without a new version of their tensors."""

    def __init__(self) -> None:
        self.done = 0
        register_optimizer_step_post_hook(self._count)

    def _count(self, *_: object) -> None:
        self.done += 1


_STEPS = _Steps()


def _packed(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_FOR)
    return packed


def _padded_product(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the product of states (…, size), whose rows are padded to one of a few counts.

    oneDNN makes a program for each count of rows and keeps the last thousand: half a megabyte for each layer's shape.
    """
    rows = states.reshape(-1, states.shape[-1])
    count = next(size for size in _ROW_COUNTS if size >= len(rows))
    if count > len(rows):
        rows = torch.nn.functional.pad(rows, (0, 0, 0, count - len(rows)))
    product = _product(rows, weight, bias)
    return product[: states.numel() // states.shape[-1]].view(*states.shape[:-1], -1)


def _product(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return product


def _is_plain(weight: Any) -> bool:
    return type(weight) is nn.Parameter and weight.is_cpu and weight.dtype == torch.float32


@cache
@torch.no_grad()
def has_onednn() -> bool:
    """Whether this build of PyTorch has the product, tried on a small one: it is internal to it and may change."""
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (torch.randn(size, generator=generator) for size in ((3, 32), (48, 32), (48,)))
    expected = nn.functional.linear(states, weight, bias)
    try:
        ours = _product(states, _packed(weight), bias)
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(ours, expected, atol=1e-4)
