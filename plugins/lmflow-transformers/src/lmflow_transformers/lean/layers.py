"""Training layers that keep fewer activations: what a cheap element-wise pass can make again is not kept.

Of a gated MLP the two projections are kept, not their activation and product; of a norm its input, not its output.
Backward makes them again, at the cost of a few element-wise passes and no matrix product: about half of a layer's
activations are saved for a percent of its time (the idea of selective recomputation, arXiv:2205.05198).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lmflow_transformers.comparing import alike, has_numbers, same_memory
from lmflow_transformers.lean.recomputable import recomputable, recomputing
from lmflow_transformers.lean.rotation import lean_rotation

_PROBE_ROWS = 4
_PROBE_SIZES = (1.0, 30.0, 1000.0)
_MLP_PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")


@contextmanager
def lean_layers(network: torch.nn.Module) -> Iterator[None]:
    """For the time of the context, let the norms and gated MLPs of a network keep less for backward.

    A module is changed only where what it computes is known: by the parts it has, and by a trial on random input.
    """
    changed = [module for module in network.modules() if _make_lean(module)]
    try:
        with recomputing(), lean_rotation(network):
            yield
    finally:
        for module in changed:
            del module.forward


def _make_lean(module: torch.nn.Module) -> bool:
    """Change a module's forward pass if it is of a known kind."""
    if "forward" in vars(module):
        return False
    if _is_gated_mlp(module):
        module.forward = _gated_mlp(module)
        return True
    if _is_rms_norm(module):
        module.forward = _rms_norm(module)
        return True
    return False


def _gated_mlp(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(hidden: torch.Tensor) -> torch.Tensor:
        gate, up = module.gate_proj(hidden), module.up_proj(hidden)
        product = _GatedProduct.apply(gate, up, module.act_fn)
        kept = gate.detach(), up.detach()
        down: torch.Tensor = module.down_proj(recomputable(product, lambda: _product(module.act_fn, *kept)))
        return down

    return forward


class _GatedProduct(torch.autograd.Function):
    """``act(gate) * up``, keeping nothing but ``gate`` and ``up``."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, act: Callable[..., torch.Tensor]) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.act = act
        return _product(act, gate, up)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        gate, up = ctx.saved_tensors
        gate = gate.detach().requires_grad_()
        with torch.enable_grad():
            activated = ctx.act(gate)
        (grad_gate,) = torch.autograd.grad(activated, gate, outer[0] * up)
        return grad_gate, activated.detach() * outer[0], None


def _product(act: Callable[..., torch.Tensor], gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return ``act(gate) * up``, in one new buffer: a second one would leave a gap among what is kept."""
    activated = act(gate)
    return activated * up if same_memory(activated, gate) else activated.mul_(up)


def _rms_norm(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(hidden: torch.Tensor) -> torch.Tensor:
        normed, scale = _RmsNorm.apply(hidden, module.weight, module.variance_epsilon)
        kept = hidden.detach()
        return recomputable(normed, lambda: _scaled(kept, scale).mul_(module.weight.detach()))

    return forward


class _RmsNorm(torch.autograd.Function):
    """Root mean square norm (arXiv:1910.07467), keeping its input and one factor per row, in float32."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> Any:
        scale = hidden.float().pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight, scale)
        ctx.mark_non_differentiable(scale)
        return _scaled(hidden, scale).mul_(weight), scale

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        hidden, weight, scale = ctx.saved_tensors
        scaled = hidden.float() * scale
        upstream = outer[0].float()
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (upstream * scaled).flatten(0, -2).sum(0).to(weight.dtype)
        upstream = upstream * weight
        mean = (upstream * scaled).mean(-1, keepdim=True)
        grad = upstream.sub_(scaled.mul_(mean)).mul_(scale)
        return grad.to(hidden.dtype), grad_weight, None


def _scaled(hidden: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (hidden.float() * scale).to(hidden.dtype)


@torch.no_grad()
def _is_rms_norm(module: Any) -> bool:
    """Whether a module is a plain root mean square norm, tried on random input."""
    weight = getattr(module, "weight", None)
    if not hasattr(module, "variance_epsilon") or not isinstance(weight, torch.nn.Parameter) or weight.dim() != 1:
        return False
    if not has_numbers(weight):
        return True  # a plan: it is known by its parts alone
    generator = torch.Generator().manual_seed(0)
    trial = torch.randn(_PROBE_ROWS, len(weight), generator=generator).to(weight.device, weight.dtype)
    ours, _ = _RmsNorm.apply(trial, weight, module.variance_epsilon)
    return torch.allclose(ours, module(trial), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def _is_gated_mlp(module: Any) -> bool:
    """Whether a module is a plain gated MLP, tried on random input so large, too, that a clamp would show."""
    if not all(hasattr(module, part) for part in _MLP_PARTS) or not hasattr(module.gate_proj, "in_features"):
        return False
    weight = module.gate_proj.weight
    if not has_numbers(weight):
        return True
    dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    generator = torch.Generator().manual_seed(0)
    trial = torch.randn(1, _PROBE_ROWS, module.gate_proj.in_features, generator=generator).to(weight.device, dtype)
    try:
        with _dropout_of_its_own(module), torch.random.fork_rng(devices=[]):
            trials = [trial * size for size in _PROBE_SIZES]
            return all(alike(_gated_mlp(module)(rows), module(rows), tolerance) for rows in trials)
    except (TypeError, RuntimeError, ValueError):
        return False


@contextmanager
def _dropout_of_its_own(module: Any) -> Iterator[None]:
    """For the time of the context, let a gated MLP drop out what it does in training, its projections nothing.

    What adapters drop inside the projections happens in ours as well.
    """
    modes = {part: part.training for part in module.modules()}
    module.train()
    for projection in (module.gate_proj, module.up_proj, module.down_proj):
        projection.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
