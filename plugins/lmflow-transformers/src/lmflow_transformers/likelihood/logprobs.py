"""Log-probabilities of single tokens, with gradients, in chunks of positions.

A loss may weigh each token differently, which is known in backward only: there a chunk's logits are made once more.
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
        for part in chunks(len(targets), chunk):
            logits = computing.logits(hidden[part])
            aimed = logits.gather(1, targets[part, None])[:, 0]
            logprobs[part] = aimed - logits.logsumexp(-1)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.head, ctx.chunk = head, chunk
        return logprobs

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        hidden, weight, bias, targets = ctx.saved_tensors
        computing = ctx.head.cast(hidden.dtype)
        grads = HeadGradients(hidden, weight, bias, ctx.needs_input_grad)
        for part in chunks(len(targets), ctx.chunk):
            logits = computing.logits(hidden[part])
            upstream = outer[0][part, None]
            gradient = logits.softmax(-1).mul_(-upstream).scatter_add_(1, targets[part, None], upstream)
            grads.add(computing.logits_gradient(gradient, logits).to(hidden.dtype), hidden[part], part)
        return (*grads.taken(torch.ones((), device=hidden.device)), None, None, None)


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
