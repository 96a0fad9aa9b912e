"""Cross-entropy at labelled positions only, in chunks, so that the logits of a batch never exist as a whole.

The gradient is computed in the forward pass, while a chunk's logits are at hand: each chunk's logits are made once
and thrown away (the idea of Cut Cross-Entropy and of Liger's fused linear cross-entropy, arXiv:2411.09009 and
arXiv:2410.10989).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lmflow_core.api import IGNORE

_PROBE_LENGTH = 8


@dataclass(frozen=True)
class Head:
    """A model's output head: hidden states to logits.

    ``weight`` is (vocabulary, hidden), ``bias`` (vocabulary,) or None; logits are multiplied by ``scale``, then
    capped smoothly to ``softcap`` where it is not None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, network: Any) -> Head:
        """Read the head of a causal language model of transformers."""
        linear, config = network.get_output_embeddings(), network.config
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(linear.weight, getattr(linear, "bias", None), float(scale), softcap)

    def recorded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight and bias for a function of autograd, detached where nothing is recorded.

        Inside such a function recording is off in any case, and a parameter would seem to want its gradient.
        """
        if torch.is_grad_enabled():
            return self.weight, self.bias
        return self.weight.detach(), None if self.bias is None else self.bias.detach()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return float32 logits (positions, vocabulary) of hidden states (positions, hidden)."""
        logits = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        logits = logits * self.scale if self.scale != 1.0 else logits
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def logits_gradient(self, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the gradient before cap and scale, for the gradient after them (both (positions, vocabulary))."""
        if self.softcap is not None:
            gradient = gradient * (1 - (logits / self.softcap) ** 2)
        return gradient * self.scale if self.scale != 1.0 else gradient


class HeadGradients:
    """The gradients of hidden states (positions, hidden size), of the head's weight and of its bias, chunk by chunk."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, wanted: Sequence[bool]
    ) -> None:
        """Start with none; ``wanted`` says for each of the three whether its gradient is."""
        self.wanted = any(wanted[:3])
        self._weight, self._weight_wanted = weight, wanted[1]
        self._of_hidden = torch.zeros_like(hidden) if wanted[0] else None
        self._of_weight: torch.Tensor | None = None
        self._of_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        self._taken = False

    def add(self, gradient: torch.Tensor, hidden: torch.Tensor, part: slice) -> None:
        """Add those of one chunk.

        Args:
            gradient: of what the head's linear map gives for the chunk, (chunk, vocabulary).
            hidden: the chunk's hidden states, (chunk, hidden size).
            part: where the chunk is among the positions.
        """
        if self._of_hidden is not None:
            torch.mm(gradient, self._weight, out=self._of_hidden[part])
        if self._of_weight is not None:
            self._of_weight.addmm_(gradient.T, hidden)
        elif self._weight_wanted:
            self._of_weight = torch.mm(gradient.T, hidden)
        if self._of_bias is not None:
            self._of_bias += gradient.sum(0)

    def taken(self, factor: torch.Tensor) -> list[torch.Tensor | None]:
        """Give the three away, times a factor; None is not wanted.

        Nothing is held any longer: autograd would copy what something else holds.

        Raises:
            RuntimeError: they were given away before; the loss must be computed again for a second backward pass.
        """
        if self._taken:
            raise RuntimeError("this loss has been differentiated already: compute it again before another backward")
        self._taken = True
        if self._of_weight is None and self._weight_wanted:
            self._of_weight = torch.zeros_like(self._weight)
        grads = (self._of_hidden, self._of_weight, self._of_bias)
        self._of_hidden = self._of_weight = self._of_bias = None
        return [None if grad is None else grad.mul_(factor.to(grad.dtype)) for grad in grads]


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
        for part in _parts(len(targets), chunk):
            total += _chunk_loss(hidden[part], targets[part], head, grads, part)
        ctx.grads = grads
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return (*ctx.grads.taken(outer[0]), None, None, None)


def _parts(count: int, most: int) -> Iterator[slice]:
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


def summed_cross_entropy(hidden: torch.Tensor, targets: torch.Tensor, head: Head, chunk: int) -> torch.Tensor:
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
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden, weight, bias, targets, head, chunk)
    return loss


@torch.no_grad()
def token_scores(
    hidden: torch.Tensor, targets: torch.Tensor, head: Head, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each target (positions,) its negative log-likelihood, in nats, and whether it is the likeliest."""
    nll, right = [], []
    for start in range(0, len(targets), chunk):
        logits, wanted = head.logits(hidden[start : start + chunk]), targets[start : start + chunk]
        nll.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
        right.append(logits.argmax(-1) == wanted)
    return torch.cat(nll), torch.cat(right)


@contextmanager
def label_only_forward(network: Any, chunk: int) -> Iterator[None]:
    """For the time of the context, let ``network(…, shift_labels=…)`` return a loss without forming all logits.

    The loss is summed and divided by ``num_items_in_batch``. It is computed inside ``forward``, so wrappers that
    need to see the forward pass (data parallelism, adapters) work. A model whose head cannot be reproduced from its
    configuration falls back to its own logits.
    """
    original, patched = network.forward, "forward" in vars(network)
    label_only = head_is_plain(network)

    def forward(
        *args: Any, shift_labels: torch.Tensor | None = None, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        if shift_labels is None:
            return original(*args, **kwargs)
        kwargs.pop("labels", None)
        labelled = shift_labels != IGNORE
        if label_only:
            hidden = network.get_decoder()(*args, use_cache=False, **kwargs).last_hidden_state
            total = summed_cross_entropy(hidden[labelled], shift_labels[labelled], Head.of(network), chunk)
        else:
            logits = original(*args, use_cache=False, **kwargs).logits[labelled].float()
            total = torch.nn.functional.cross_entropy(logits, shift_labels[labelled], reduction="sum")
        return {"loss": total / (labelled.sum() if num_items_in_batch is None else num_items_in_batch)}

    network.forward = forward
    try:
        yield
    finally:
        if patched:
            network.forward = original
        else:
            del network.forward


@torch.no_grad()
def head_is_plain(network: Any) -> bool:
    """Whether decoder and :class:`Head` together give the network's own logits, tried on a few tokens."""
    if not _is_linear(network.get_output_embeddings()) or network.get_decoder() is network:
        return False
    device = network.get_input_embeddings().weight.device
    ids = torch.arange(_PROBE_LENGTH, device=device)[None] % network.config.get_text_config().vocab_size
    training = network.training
    network.eval()
    try:
        own = network(input_ids=ids, use_cache=False).logits[0].float()
        hidden = network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
        return torch.allclose(Head.of(network).logits(hidden), own, atol=1e-3, rtol=1e-3)
    finally:
        network.train(training)


def _is_linear(head: Any) -> bool:
    """Whether a head is nothing but a weight and a bias; an adapter on it has more, which trains as well."""
    return head is not None and {name for name, _ in head.named_parameters()} <= {"weight", "bias"}
