"""Log-probabilities of single tokens, with gradients, in chunks of positions.

A loss may weigh each token differently, which is known in backward only. The gradient of a token's hidden state is that
of its log-probability times the weight, so where the head is frozen it is made in the forward pass, while a chunk's
logits are at hand. The gradient of the head is a sum over tokens: for it a chunk's logits are made once more.
"""

from __future__ import annotations

from typing import Any

import torch

from lmflow_transformers.likelihood.cross_entropy import chunks, in_compute_dtype
from lmflow_transformers.likelihood.head import Head, HeadGradients


class _ChunkedLogprobs(torch.autograd.Function):
    """Log-probabilities of tokens; see :func:`token_logprobs`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        head: Head,
        chunk: int,
    ) -> torch.Tensor:
        computing = head.cast(hidden.dtype)
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        frozen = ctx.needs_input_grad[0] and not any(ctx.needs_input_grad[1:3])
        grads = HeadGradients(hidden, weight, bias, (frozen, False, False))
        for part in chunks(len(targets), chunk):
            logits = computing.logits(hidden[part])
            aimed, total = logits.gather(1, targets[part, None]), logits.logsumexp(-1, keepdim=True)
            logprobs[part] = (aimed - total)[:, 0]
            if frozen:
                # A cap's gradient needs the logits; else one buffer holds them, then the gradient.
                shifted = logits.sub_(total) if computing.softcap is None else logits - total
                gradient = _gradient(shifted.exp_(), targets[part], 1.0)
                grads.add(computing.logits_gradient(gradient, logits).to(hidden.dtype), hidden[part], part)
        if frozen:
            ctx.of_hidden, *_ = grads.taken(torch.ones((), device=hidden.device))
        else:
            ctx.of_hidden = None
            ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.head, ctx.chunk = head, chunk
        return logprobs

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        if ctx.of_hidden is not None:
            return ctx.of_hidden * outer[0][:, None].to(ctx.of_hidden.dtype), *[None] * 5
        hidden, weight, bias, targets = ctx.saved_tensors
        computing = ctx.head.cast(hidden.dtype)
        grads = HeadGradients(hidden, weight, bias, ctx.needs_input_grad)
        for part in chunks(len(targets), ctx.chunk):
            logits = computing.logits(hidden[part])
            gradient = _gradient(logits.softmax(-1), targets[part], outer[0][part, None])
            grads.add(computing.logits_gradient(gradient, logits).to(hidden.dtype), hidden[part], part)
        return (*grads.taken(torch.ones((), device=hidden.device)), None, None, None)


def _gradient(probabilities: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
    """Return the gradient of weighted log-probabilities for logits, in place of (positions, vocabulary)."""
    upstream = torch.as_tensor(weight, dtype=probabilities.dtype, device=probabilities.device)
    return probabilities.mul_(-upstream).scatter_add_(1, targets[:, None], upstream.expand(len(targets), 1))


def token_logprobs(hidden: torch.Tensor, targets: torch.Tensor, head: Head, chunk: int) -> torch.Tensor:
    """Return the log-probability of each target, with gradients for hidden states, weight and bias.

    Args:
        hidden: (positions, hidden size).
        targets: (positions,) token ids, int64.
        head: the output head.
        chunk: positions whose logits exist at a time.

    Returns:
        (positions,), float32, in nats.
    """
    weight, bias = head.recorded()
    logprobs: torch.Tensor = _ChunkedLogprobs.apply(in_compute_dtype(hidden), weight, bias, targets, head, chunk)
    return logprobs
