"""A linear layer with its adapter as one operation of autograd.

peft computes ``base(x) + B(A(x)) * scale`` in steps of their own, each of which writes a tensor of the layer's output
and has another one go back. Here the adapter's product is added to the layer's where it lies, and so is its gradient.
Factors train in float32 also beside a layer of half of that; here they are multiplied in the layer's format, as under
autocast, where peft brings all that goes through them to float32.
"""

from __future__ import annotations

from typing import Any

import torch

from lmflow_lora.library import peft


def fuse_adapters(network: torch.nn.Module) -> None:
    """Let the plain adapters of a network compute as one operation; any other computes as peft has it."""
    for module in network.modules():
        if type(module) is peft.tuners.lora.Linear:
            module.__class__ = FusedLinear


class FusedLinear(peft.tuners.lora.Linear):
    """peft's layer, but for the way its forward pass is computed in training."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return what peft returns, but for rounding; x is (…, inputs), the result (…, outputs)."""
        name = self._one_adapter()
        if name is None or args or kwargs or not self._is_plain(name, x):
            result: torch.Tensor = super().forward(x, *args, **kwargs)
            return result
        dropped = self.lora_dropout[name](x)
        factors = self.lora_A[name].weight, self.lora_B[name].weight
        base = self.base_layer.weight, self.base_layer.bias
        fused: torch.Tensor = _Fused.apply(x, None if dropped is x else dropped, *base, *factors, self.scaling[name])
        return fused

    def _one_adapter(self) -> str | None:
        """Return the name of the adapter that takes part, where it is one."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        return name if name in self.lora_A and name not in self.lora_variant else None

    def _is_plain(self, name: str, x: torch.Tensor) -> bool:
        """Whether layer and adapter are a frozen weight in the format of x, and factors in that or float32."""
        base, factors = self.base_layer, (self.lora_A[name], self.lora_B[name])
        if type(base) is not torch.nn.Linear or "forward" in vars(base) or base.weight.requires_grad:
            return False
        if factors[1].bias is not None or torch.is_autocast_enabled(x.device.type):
            return False
        fine = all(part.weight.dtype in (x.dtype, torch.float32) for part in factors)
        return torch.is_grad_enabled() and x.dtype == base.weight.dtype and fine


class _Fused(torch.autograd.Function):
    """``x W' + b + scale (dropped A') B'``; weight and bias are frozen, ``dropped`` is x where it is None."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        taken = x if dropped is None else dropped
        ctx.formats = down.dtype, up.dtype
        down, up = down.to(x.dtype), up.to(x.dtype)
        inner = torch.nn.functional.linear(taken, down)
        result = torch.nn.functional.linear(x, weight, bias)
        _rows(result).addmm_(_rows(inner), up.T, alpha=scale)
        ctx.save_for_backward(taken, inner, weight, down, up)
        ctx.scale, ctx.dropped = scale, dropped is not None
        return result

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        taken, inner, weight, down, up = ctx.saved_tensors
        gradient = _rows(outer[0])
        of_inner = torch.mm(gradient, up).mul_(ctx.scale)
        of_up = torch.mm(gradient.T, _rows(inner)).mul_(ctx.scale)
        of_down = torch.mm(of_inner.T, _rows(taken))
        of_x = torch.mm(gradient, weight) if ctx.needs_input_grad[0] else None
        of_dropped = None
        if ctx.dropped and ctx.needs_input_grad[1]:
            of_dropped = torch.mm(of_inner, down).view(taken.shape)
        elif of_x is not None and not ctx.dropped:
            of_x.addmm_(of_inner, down)
        of_factors = (each.to(dtype) for each, dtype in zip((of_down, of_up), ctx.formats, strict=True))
        return None if of_x is None else of_x.view(taken.shape), of_dropped, None, None, *of_factors, None


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return (…, size) as (rows, size)."""
    return tensor.reshape(-1, tensor.shape[-1])
