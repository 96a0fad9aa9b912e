"""Cross-entropy at labelled positions only, in chunks, so that the logits of a batch never exist as a whole.

The gradient is computed in the forward pass, while a chunk's logits are at hand: each chunk's logits are made once
and thrown away (the idea of Cut Cross-Entropy and of Liger's fused linear cross-entropy, arXiv:2411.09009 and
arXiv:2410.10989).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from typing import Any

import torch

from lmflow_transformers.likelihood.head import Head, HeadGradients


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies; see :func:`chunked_cross_entropy`."""

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
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grads = HeadGradients(hidden, weight, bias, ctx.needs_input_grad)
        head = head.cast(hidden.dtype)
        for part in chunks(len(targets), chunk):
            total += _chunk_loss(hidden[part], targets[part], head, grads, part)
        ctx.grads = grads
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return (*ctx.grads.taken(outer[0]), None, None, None)


def chunks(count: int, most: int) -> Iterator[slice]:
    """Yield slices of ``count`` positions, as few as can be of at most ``most``, and of one size."""
    number = max(math.ceil(count / most), 1)
    size = max(math.ceil(count / number), 1)
    yield from (slice(start, start + size) for start in range(0, count, size))


def _chunk_loss(
    hidden: torch.Tensor, targets: torch.Tensor, head: Head, grads: HeadGradients, part: slice
) -> torch.Tensor:
    """Return one chunk's summed loss and add its gradients to ``grads``."""
    logits = head.logits(hidden)
    rows = torch.arange(len(targets), device=targets.device)
    aimed = logits[rows, targets]
    highest = logits.amax(-1, keepdim=True)
    # A cap's gradient needs the logits; else one buffer holds logits, then probabilities, then their gradient.
    weights = logits.sub_(highest) if head.softcap is None else logits - highest
    sums = weights.exp_().sum(-1, keepdim=True)
    loss = (sums.log() + highest).sum() - aimed.sum()
    if not grads.wanted:
        return loss
    gradient = weights.div_(sums)
    gradient[rows, targets] -= 1.0
    grads.add(head.logits_gradient(gradient, logits).to(hidden.dtype), hidden, part)
    return loss


def in_compute_dtype(hidden: torch.Tensor) -> torch.Tensor:
    """Return hidden states in the number format that autocast computes in, where it is on."""
    kind = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else hidden


def fused_cross_entropy(hidden: torch.Tensor, targets: torch.Tensor, head: Head, chunk: int) -> torch.Tensor:
    """Return the same as :func:`chunked_cross_entropy`, by Liger's fused kernel on a GPU that has it."""
    if _liger_serves(hidden, head):
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        fused = LigerFusedLinearCrossEntropyLoss(reduction="sum", softcap=head.softcap)
        loss: torch.Tensor = fused(head.weight, hidden * head.scale, targets, head.bias)
        return loss
    return chunked_cross_entropy(hidden, targets, head, chunk)


def _liger_serves(hidden: torch.Tensor, head: Head) -> bool:
    """Whether Liger's kernel can compute this loss; it knows no scale, which a head without a bias can do without."""
    if not hidden.is_cuda or importlib.util.find_spec("liger_kernel") is None:
        return False
    return head.scale == 1.0 or head.bias is None


def chunked_cross_entropy(hidden: torch.Tensor, targets: torch.Tensor, head: Head, chunk: int) -> torch.Tensor:
    """Return the summed cross-entropy of some positions, with gradients for hidden states, weight and bias.

    Args:
        hidden: (positions, hidden size).
        targets: (positions,) token ids, int64, all of them learned.
        head: the output head.
        chunk: positions whose logits exist at a time.

    Returns:
        A scalar, float32, in nats.
    """
    weight, bias = head.recorded()
    hidden = in_compute_dtype(hidden)
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden, weight, bias, targets, head, chunk)
    return loss


@torch.no_grad()
def token_scores(
    hidden: torch.Tensor, places: torch.Tensor, targets: torch.Tensor, head: Head, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each target its negative log-likelihood, in nats, and whether it is the likeliest.

    Args:
        hidden: (positions, hidden size).
        places: (targets,), int64, the position at which each is predicted; several may be at one.
        targets: (targets,) token ids, int64.
        head: the output head.
        chunk: positions whose logits exist at a time.
    """
    nll = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    right = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
    for part in chunks(len(hidden), chunk):
        here = ((places >= part.start) & (places < part.stop)).nonzero()[:, 0]
        nll[here], right[here] = scores_of(head.logits(hidden[part]), places[here] - part.start, targets[here])
    return nll, right


def scores_of(logits: torch.Tensor, places: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same as :func:`token_scores`, from logits (positions, vocabulary)."""
    return logits.logsumexp(-1)[places] - logits[places, targets], logits.argmax(-1)[places] == targets
