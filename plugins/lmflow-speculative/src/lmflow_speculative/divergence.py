"""The divergence of one model's distribution from another's, in chunks of positions.

Logits of a batch never exist as a whole: each chunk's are made from hidden states, give their share of the loss and of
its gradient, and are thrown away, as the torch runtime does for cross-entropy.
"""

from __future__ import annotations

from typing import Any

import torch

from lmflow_transformers.api import Head, HeadGradients


class _ChunkedDivergence(torch.autograd.Function):
    """Sum of divergences; see :func:`chunked_divergence`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        wanted: torch.Tensor,
        head: Head,
        wanted_head: Head,
        chunk: int,
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grads = HeadGradients(hidden, weight, bias, ctx.needs_input_grad)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            loss, gradient = _chunk(hidden[part], wanted[part], head, wanted_head)
            total += loss
            grads.add(gradient.to(hidden.dtype), hidden[part], part)
        ctx.grads = grads
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return (*ctx.grads.taken(outer[0]), None, None, None, None)


def _chunk(
    hidden: torch.Tensor, wanted: torch.Tensor, head: Head, wanted_head: Head
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one chunk's summed divergence and its gradient for what the head's linear map gives."""
    logits = head.logits(hidden)
    own, target = logits.log_softmax(-1), wanted_head.logits(wanted).log_softmax(-1)
    share = target.exp()
    loss = (share * target.sub_(own)).sum()
    return loss, head.logits_gradient(own.exp_().sub_(share), logits)


def chunked_divergence(
    hidden: torch.Tensor, wanted: torch.Tensor, head: Head, wanted_head: Head, chunk: int
) -> torch.Tensor:
    """Return the summed Kullback-Leibler divergence KL(wanted || own) of some positions.

    Its gradient reaches the own hidden states and the own head's weight and bias; what is wanted is given.

    Args:
        hidden: (positions, hidden size) of the model that learns.
        wanted: (positions, hidden size of the teacher) of the model that is learned from.
        head: of the model that learns.
        wanted_head: of the model that is learned from, for the same tokens.
        chunk: positions whose logits exist at a time.

    Returns:
        A scalar, float32, in nats.
    """
    weight, bias = head.recorded()
    loss: torch.Tensor = _ChunkedDivergence.apply(hidden, weight, bias, wanted, head, wanted_head, chunk)
    return loss
