"""Rotary position embedding in one buffer instead of four (RoPE, arXiv:2104.09864)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

_FUNCTION = "apply_rotary_pos_emb"


@contextmanager
def lean_rotation(network: torch.nn.Module) -> Iterator[None]:
    """For the time of the context, let a network rotate queries and keys with fewer buffers.

    transformers keeps the rotation as a function of each model's module; it is replaced where it is found to do what
    ours does, tried on random input.
    """
    modules = {sys.modules[type(module).__module__] for module in network.modules()}
    with ExitStack() as stack:
        for module in modules:
            if _rotates_alike(getattr(module, _FUNCTION, None)):
                stack.enter_context(patch.object(module, _FUNCTION, rotate_both))
        yield


def rotate_both(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys (batch, heads, T, size) by angles whose cosine and sine are (batch, T, size)."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _Rotation.apply(query, cos, sin), _Rotation.apply(key, cos, sin)


class _Rotation(torch.autograd.Function):
    """Its gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(states, cos, sin)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        cos, sin = ctx.saved_tensors
        half = sin.shape[-1] // 2
        back = torch.cat((sin[..., half:], sin[..., :half]), dim=-1).neg_()
        return _rotated(outer[0], cos, back), None, None


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = states.shape[-1] // 2
    rotated = states * cos
    rotated[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(states[..., :half], sin[..., half:])
    return rotated


@torch.no_grad()
def _rotates_alike(function: Any) -> bool:
    """Whether a function of transformers rotates as ours does."""
    if function is None:
        return False
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, heads, 3, 8, generator=generator) for heads in (4, 2))
    cos, sin = (torch.randn(1, 3, 8, generator=generator) for _ in range(2))
    try:
        theirs = function(query, key, cos, sin)
    except (TypeError, RuntimeError, ValueError):
        return False
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(theirs, rotate_both(query, key, cos, sin), strict=True))
