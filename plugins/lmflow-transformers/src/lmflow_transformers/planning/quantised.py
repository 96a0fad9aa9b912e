"""Linear layers as quantised ones are in a plan: as many bytes, made whole again for each product."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

from lmflow_core.api import Quantization

_BLOCK, _FACTORS_BLOCK = 64, 256


def bytes_of(form: Quantization, rows: int, columns: int) -> int:
    """Return the bytes of quantised weights.

    Four bits: half a byte for each weight and a float32 factor for each block of 64; with double quantisation a byte
    for the factor, and a float32 for 256 of those (arXiv:2305.14314). Eight bits: a byte, and a float32 for each row.
    """
    count = rows * columns
    if form.form == "int8":
        return count + 4 * rows
    blocks = -(-count // _BLOCK)
    return (count + 1) // 2 + (blocks + 4 * -(-blocks // _FACTORS_BLOCK) if form.double else 4 * blocks)


class QuantisedLinear(torch.nn.Linear):
    """A linear layer whose weight is bytes: frozen, and of no use but to tell what it takes."""

    def __init__(self, original: torch.nn.Linear, form: Quantization) -> None:
        super().__init__(original.in_features, original.out_features, bias=False, device="meta")
        held = bytes_of(form, original.out_features, original.in_features)
        self.weight = torch.nn.Parameter(torch.empty(held, dtype=torch.uint8), requires_grad=False)
        self.bias = original.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply; nothing is kept for backward but the bytes."""
        product: torch.Tensor = _Product.apply(input, self.weight, self.out_features)
        return product if self.bias is None else product + self.bias


class _Product(torch.autograd.Function):
    """The weight exists whole, in the format of the input, during each of the two products."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, packed: torch.Tensor, width: int) -> torch.Tensor:
        ctx.shape = (width, rows.shape[-1])
        return linear(rows, rows.new_empty(ctx.shape))

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return outer[0] @ outer[0].new_empty(ctx.shape), None, None


def quantise(network: torch.nn.Module, form: Quantization, head: torch.nn.Module | None) -> None:
    """Replace every linear layer of a network but its head."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child is not head:
                setattr(module, name, QuantisedLinear(child, form))
